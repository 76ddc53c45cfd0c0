"""Knows what the engine counts about itself and writes it in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Measures:
    """The engine's counters; `text` renders them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.running = Gauge("galerne_engine_requests_running", "Generations under way", registry=self._registry)
        self.waiting = Gauge("galerne_engine_requests_waiting", "Generations in the queue", registry=self._registry)
        self.requests = Counter(
            "galerne_engine_requests", "Requests by how they ended", ["outcome"], registry=self._registry
        )
        self.prompt_tokens = Counter("galerne_engine_prompt_tokens", "Prompt tokens", registry=self._registry)
        self.cached_tokens = Counter(
            "galerne_engine_cached_tokens", "Prompt tokens found in the KV cache", registry=self._registry
        )
        self.generated_tokens = Counter("galerne_engine_generated_tokens", "Tokens generated", registry=self._registry)
        self.first_token = Histogram(
            "galerne_engine_first_token_seconds",
            "Time from arrival to the first token",
            buckets=_LATENCIES,
            registry=self._registry,
        )
        for outcome in ("finished", "cancelled", "refused", "failed"):
            self.requests.labels(outcome)

    def ended(self, outcome: str) -> None:
        """Counts a request that ended as `finished`, `cancelled`, `refused` or `failed`."""
        self.requests.labels(outcome).inc()

    def text(self) -> bytes:
        """All counters in Prometheus' text format."""
        return generate_latest(self._registry)
