"""What is kept of a request beside its settlement: a line of log, the metrics, and a span for whoever traces."""

from galerne.gateway.admission import Admitted, Arrival
from galerne.gateway.metrics import GatewayMetrics
from galerne.gateway.settled import Settled
from galerne.gateway.tally import Tally
from galerne.gateway.telemetry import Finished, Telemetry, content_of
from galerne.gateway.wire.answer import TokenCount
from galerne.kernel import Clock, GalerneError, LineLog

__all__ = ["Notes"]

_NOTHING = TokenCount(0, 0, 0)


class Notes:
    """Takes note of each request once it has been answered; nothing of what was written, but for a workspace that asked
    for that in its traces.
    """

    def __init__(self, metrics: GatewayMetrics, telemetry: Telemetry, clock: Clock) -> None:
        self._metrics = metrics
        self._telemetry = telemetry
        self._clock = clock
        self._lines = LineLog("gateway", "request")

    def refused(self, arrival: Arrival, error: GalerneError | None, cause: str | None = None) -> None:
        """A request that no engine was asked for, or that ended in a defect."""
        model = "" if arrival.model is None else arrival.model.id
        self._metrics.answered(arrival.endpoint, model, arrival.caller.status)
        line = _head(arrival, arrival.caller.status)
        if error is not None or cause is not None:
            line["cause"] = cause or (error and error.code)
        self._lines.write(line)
        if self._telemetry.on:
            self._telemetry.finished(self._finished(arrival, None, None, error))

    def ended(
        self, admitted: Admitted, tally: Tally, end: Settled, error: GalerneError | None, cause: str | None
    ) -> None:
        """A request that an engine answered, in whatever way."""
        arrival, event = admitted.arrival, end.event
        count = TokenCount(event.input_tokens, event.cached_tokens, event.output_tokens)
        self._metrics.answered(arrival.endpoint, event.model, event.status, admitted.tier)
        self._metrics.settled(event.endpoint, event.model, count, event.ttft_ms, event.total_ms)
        line = _head(arrival, event.status)
        line |= {
            "outcome": event.outcome,
            "streamed": event.streamed,
            "input_tokens": event.input_tokens,
            "cached_tokens": event.cached_tokens,
            "output_tokens": event.output_tokens,
            "queue_ms": round(event.queue_ms, 1),
            "ttft_ms": None if event.ttft_ms is None else round(event.ttft_ms, 1),
            "total_ms": round(event.total_ms, 1),
        }
        if cause is not None:
            line["cause"] = cause
        self._lines.write(line)
        if self._telemetry.on:
            self._telemetry.finished(self._finished(arrival, (admitted, tally), end, error))

    def traces_content(self, admitted: Admitted) -> bool:
        """Whether the texts of this request are wanted for its trace."""
        return self._telemetry.on and admitted.grant.trace_content

    def _finished(
        self, arrival: Arrival, answered: tuple[Admitted, Tally] | None, end: Settled | None, error: GalerneError | None
    ) -> Finished:
        actor = None if arrival.grant is None else arrival.grant.actor
        event = None if end is None else end.event
        model, content = arrival.model, None
        if answered is not None and answered[1].texts is not None:
            content = content_of(answered[0].body, ["".join(parts) for parts in answered[1].texts.values()])
        traceparent = arrival.caller.headers.get(b"traceparent")
        return Finished(
            request_id=arrival.request_id,
            organisation_id=None if actor is None else actor.organisation_id,
            workspace_id=None if actor is None else actor.workspace_id,
            key_id=None if arrival.grant is None else arrival.grant.key_id,
            model=None if model is None else model.id,
            model_version=None if model is None else model.version,
            provider=None if model is None else model.engine,
            endpoint=arrival.endpoint,
            dialect=arrival.dialect,
            tier=None if answered is None else answered[0].tier,
            status=arrival.caller.status if event is None else event.status,
            error_code=None if error is None else error.code,
            count=_NOTHING
            if event is None
            else TokenCount(event.input_tokens, event.cached_tokens, event.output_tokens),
            started_at=arrival.started_at,
            queue_ms=0.0 if event is None else event.queue_ms,
            ttft_ms=None if event is None else event.ttft_ms,
            total_ms=(self._clock.monotonic() - arrival.started_s) * 1000,
            finish_reason=None if event is None else event.finish_reason,
            streamed=answered is not None and answered[0].streamed,
            traceparent=None if traceparent is None else traceparent.decode("latin-1"),
            content=content,
        )


def _head(arrival: Arrival, status: int) -> dict[str, str | int | float | bool | None]:
    return {
        "request_id": arrival.request_id,
        "endpoint": arrival.endpoint,
        "dialect": arrival.dialect,
        "key": None if arrival.grant is None else arrival.grant.prefix,
        "model": None if arrival.model is None else arrival.model.id,
        "status": status,
    }
