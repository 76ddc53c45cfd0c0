"""What the data plane counts for Prometheus; names end in their unit, labels never hold what a caller wrote."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from galerne.gateway.wire.answer import TokenCount

__all__ = ["GatewayMetrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_COMMIT_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 5)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class _OfModel:
    input_tokens: Counter
    cached_tokens: Counter
    output_tokens: Counter
    ttft: Histogram
    duration: Histogram


class GatewayMetrics:
    """Every metric of one gateway, in the registry it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: dict[tuple[str, str], _OfModel] = {}
        self._requests = Counter(
            "galerne_gateway_requests", "Requests answered.", ("endpoint", "model", "status"), registry=registry
        )
        self._tokens = Counter("galerne_gateway_tokens", "Tokens settled.", ("model", "class"), registry=registry)
        self._ttft = Histogram(
            "galerne_gateway_ttft_seconds", "Time to the first token.", ("model",), buckets=_SECONDS, registry=registry
        )
        self._duration = Histogram(
            "galerne_gateway_duration_seconds",
            "Time from a request's arrival to its settlement.",
            ("endpoint", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("galerne_gateway_in_flight", "Requests being answered.", registry=registry)
        self.cancellations = Counter(
            "galerne_gateway_upstream_cancellations",
            "Engine requests cancelled because the client left.",
            registry=registry,
        )
        self._batch = Histogram(
            "galerne_gateway_settlement_batch_size", "Requests in one commit.", buckets=_BATCHES, registry=registry
        )
        self._commit = Histogram(
            "galerne_gateway_settlement_seconds", "Time of one commit.", buckets=_COMMIT_SECONDS, registry=registry
        )

    def answered(self, endpoint: str, model: str, status: int) -> None:
        """One request was answered; `model` is a catalogue's id, or empty when none was found."""
        self._requests.labels(endpoint, model, str(status)).inc()

    def settled(self, endpoint: str, model: str, count: TokenCount, ttft_ms: float | None, total_ms: float) -> None:
        """One request was settled."""
        of = self._of(endpoint, model)
        of.input_tokens.inc(count.input_tokens)
        of.cached_tokens.inc(count.cached_tokens)
        of.output_tokens.inc(count.output_tokens)
        if ttft_ms is not None:
            of.ttft.observe(ttft_ms / 1000)
        of.duration.observe(total_ms / 1000)

    def _of(self, endpoint: str, model: str) -> "_OfModel":
        found = self._models.get((endpoint, model))
        if found is None:
            # Looking labels up costs more than counting; there are as many of these as the registry holds anyway.
            found = self._models[(endpoint, model)] = _OfModel(
                self._tokens.labels(model, "input"),
                self._tokens.labels(model, "cached"),
                self._tokens.labels(model, "output"),
                self._ttft.labels(model),
                self._duration.labels(endpoint, model),
            )
        return found

    def committed(self, size: int, seconds: float) -> None:
        """One commit of `size` settlements ended."""
        self._batch.observe(size)
        self._commit.observe(seconds)
