"""Adds up the metrics of OpenTelemetry's conventions for generative AI in plain numbers and lays them out for sending.

The SDK's own instruments would cost a request 29 µs, at five of them; these cost 2. They are cumulative, whatever
temporality is asked for: a collector makes differences of them where a store wants those.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from galerne.gateway.cells import Buckets, Cells, Family
from galerne.gateway.telemetry import Finished

__all__ = ["GenAiMetrics"]

_DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_UNKNOWN = cast(float, None)  # the least and the greatest are optional in OTLP, and the encoder leaves None out
_ATTRIBUTES = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")


class GenAiMetrics:
    """The sums since the start; what has no model or no error has no such attribute, and series are bounded."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._resource = resource
        self._scope = scope
        self._began_ns = time.time_ns()
        self._duration = _cells(
            "gen_ai.server.request.duration", "Time from arrival to the end.", _DURATION_S, "error.type"
        )
        self._first_token = _cells(
            "gen_ai.server.time_to_first_token", "Time to the first token, where all went well.", _FIRST_TOKEN_S
        )
        self._per_token = _cells(
            "gen_ai.server.time_per_output_token", "Time per token after the first, where all went well.", _PER_TOKEN_S
        )
        self._tokens = _cells("gen_ai.client.token.usage", "Tokens read and written.", _TOKENS, "gen_ai.token.type")

    def add(self, one: Finished, operation: str, provider: str, error: str | None) -> None:
        """Count one request; times of tokens only where it succeeded, as the conventions want it."""
        model, count = one.model or "", one.count
        self._duration.at(operation, provider, model, error or "").observe(one.total_ms / 1000)
        read, written = count.input_tokens + count.cached_tokens, count.output_tokens
        if read:
            self._tokens.at(operation, provider, model, "input").observe(read)
        if written:
            self._tokens.at(operation, provider, model, "output").observe(written)
        if error is None and one.ttft_ms is not None:
            self._first_token.at(operation, provider, model).observe(one.ttft_ms / 1000)
            if written > 1 and one.total_ms >= one.ttft_ms:
                per_token_s = (one.total_ms - one.ttft_ms) / 1000 / (written - 1)
                self._per_token.at(operation, provider, model).observe(per_token_s)

    def data(self) -> MetricsData:
        """All of it, laid out as the SDK's exporter takes it."""
        now_ns = time.time_ns()
        metrics = [
            Metric(cells.family.name, cells.family.meaning, unit, self._histogram(cells, now_ns))
            for cells, unit in (
                (self._duration, "s"),
                (self._first_token, "s"),
                (self._per_token, "s"),
                (self._tokens, "{token}"),
            )
            if cells.items()
        ]
        scope = ScopeMetrics(self._scope, metrics, self._scope.schema_url or "")
        return MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])

    def _histogram(self, cells: Cells[Buckets], now_ns: int) -> Histogram:
        points: list[HistogramDataPoint] = []
        for labels, buckets in cells.items():
            counts = list(buckets.counts)
            points.append(
                HistogramDataPoint(
                    attributes={name: value for name, value in labels.items() if value},
                    start_time_unix_nano=self._began_ns,
                    time_unix_nano=now_ns,
                    count=sum(counts),
                    sum=buckets.total,
                    bucket_counts=counts,
                    explicit_bounds=buckets.bounds,
                    min=_UNKNOWN,
                    max=_UNKNOWN,
                )
            )
        return Histogram(points, AggregationTemporality.CUMULATIVE)


def _cells(name: str, meaning: str, bounds: Sequence[float], *further: str) -> Cells[Buckets]:
    return Cells(Family(name, "histogram", meaning, (*_ATTRIBUTES, *further)), partial(Buckets, bounds))
