"""How a request ended, and what usage and journal say of it; pure."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from galerne.gateway.admission import Admitted
from galerne.gateway.caller import HungUp
from galerne.gateway.exchange import StreamWriter
from galerne.gateway.settlement import Settled
from galerne.gateway.tally import Tally
from galerne.gateway.wire.answer import TokenCount
from galerne.gateway.wire.errors import error_status
from galerne.journal import Entry
from galerne.kernel import GalerneError, Unavailable
from galerne.metering import UsageEvent

__all__ = ["InternalError", "Outcome", "Verdict", "place_of", "settled", "verdict_of"]

Outcome = Literal["completed", "cancelled", "failed"]
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; no answer carries it


class InternalError(GalerneError):
    """A defect of this server."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of one request: its `result`, or the `error` that ended it; `cause` is for the log."""

    outcome: Outcome
    result: bytes | StreamWriter | None = field(default=None, repr=False)
    error: GalerneError | None = None
    hung_up: bool = False
    cause: str | None = None


def verdict_of(work: "asyncio.Task[bytes | StreamWriter]", *, hung_up: bool) -> Verdict:
    """What came of the work that is done; a client that hung up after the end of its answer did get it."""
    if work.cancelled():
        error = None if hung_up else Unavailable("This server is shutting down.", code="shutting_down", retry_after_s=1)
        return Verdict("cancelled", error=error, hung_up=hung_up)
    error = work.exception()
    if error is None:
        return Verdict("completed", work.result(), hung_up=hung_up)
    if isinstance(error, HungUp):
        return Verdict("cancelled", hung_up=True, cause="client_stalled")
    if isinstance(error, GalerneError):
        return Verdict("failed", error=error, hung_up=hung_up, cause=error.code)
    return Verdict("failed", error=InternalError("Something went wrong here."), hung_up=hung_up, cause=place_of(error))


def settled(admitted: Admitted, tally: Tally, verdict: Verdict, *, at: datetime, total_ms: float) -> Settled:
    """The usage event and the journal entry of one request, to be written together."""
    count = _count(admitted, tally, verdict)
    arrival, grant, model = admitted.arrival, admitted.grant, admitted.model
    status = _status(admitted, verdict)
    finish_reason = tally.finish_reason if verdict.outcome == "completed" else None
    event = UsageEvent(
        id=arrival.request_id,
        organisation_id=grant.actor.organisation_id,
        workspace_id=grant.actor.workspace_id,
        key_id=grant.key_id,
        model=model.id,
        model_version=model.version,
        endpoint=arrival.endpoint,
        dialect=arrival.dialect,
        input_tokens=count.input_tokens,
        cached_tokens=count.cached_tokens,
        output_tokens=count.output_tokens,
        estimated=count.estimated,
        streamed=admitted.streamed,
        partial=verdict.outcome != "completed",
        outcome=verdict.outcome,
        finish_reason=finish_reason,
        status=status,
        started_at=arrival.started_at,
        queue_ms=tally.queue_ms,
        ttft_ms=tally.ttft_ms,
        total_ms=total_ms,
    )
    entry = Entry(
        action=f"inference.{verdict.outcome}",
        actor=grant.actor,
        resource=f"model:{model.id}@{model.version}",
        outcome="done" if verdict.outcome == "completed" else "failed",
        at=at,
        request_id=arrival.request_id,
        detail={
            "endpoint": arrival.endpoint,
            "input_tokens": count.input_tokens,
            "cached_tokens": count.cached_tokens,
            "output_tokens": count.output_tokens,
            "finish_reason": finish_reason,
            "status": status,
        },
    )
    return Settled(event, entry)


def _count(admitted: Admitted, tally: Tally, verdict: Verdict) -> TokenCount:
    if not tally.heard:
        return TokenCount(
            0, 0, 0
        )  # the engine never spoke: whatever it did, nothing says so, and guesses are not billed
    if verdict.outcome == "completed" or not admitted.streamed:
        return tally.count()
    return tally.sent()


def _status(admitted: Admitted, verdict: Verdict) -> int:
    if verdict.hung_up and verdict.outcome == "cancelled":
        return _CLIENT_CLOSED_REQUEST
    return 200 if verdict.error is None else error_status(verdict.error, admitted.arrival.dialect)


def place_of(error: BaseException) -> str:
    """What kind of surprise it was and where: all that may be logged, for its text may quote what a caller wrote.

    Where: the innermost line, and before it the innermost one of our own if that is another.
    """
    ours = last = ""
    trace = error.__traceback__
    while trace is not None:
        last = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith("galerne."):
            ours = last
        trace = trace.tb_next
    return " at ".join([type(error).__name__, *dict.fromkeys(place for place in (ours, last) if place)])
