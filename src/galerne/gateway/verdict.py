"""How a request ended, and what usage and journal say of it; pure."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from galerne.gateway.admission import Admitted
from galerne.gateway.caller import HungUp
from galerne.gateway.exchange import StreamWriter, Unpriced
from galerne.gateway.settled import Ending, Settled, settle_flight
from galerne.gateway.tally import Tally
from galerne.gateway.wire.answer import TokenCount
from galerne.gateway.wire.errors import error_status
from galerne.kernel import GalerneError, Unavailable, place_of

__all__ = ["InternalError", "Outcome", "Verdict", "cancelled", "failed", "settled"]

Outcome = Literal["completed", "cancelled", "failed"]
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; no answer carries it


class InternalError(GalerneError):
    """A defect of this server."""


class Verdict(Struct, frozen=True):
    """The end of one request: its `result`, or the `error` that ended it; `cause` is for the log."""

    outcome: Outcome
    result: bytes | Unpriced | StreamWriter | None = None
    error: GalerneError | None = None
    hung_up: bool = False
    cause: str | None = None

    def __repr__(self) -> str:
        return f"Verdict({self.outcome})"  # never what an engine wrote


def cancelled(*, hung_up: bool) -> Verdict:
    """Nobody waits for the answer any more, or this server stops."""
    error = None if hung_up else Unavailable("This server is shutting down.", code="shutting_down", retry_after_s=1)
    return Verdict("cancelled", error=error, hung_up=hung_up)


def failed(error: Exception, *, hung_up: bool) -> Verdict:
    """What came of work that raised `error`."""
    if isinstance(error, HungUp):
        return Verdict("cancelled", hung_up=True, cause="client_stalled")
    if isinstance(error, GalerneError):
        return Verdict("failed", error=error, hung_up=hung_up, cause=error.code)
    return Verdict("failed", error=InternalError("Something went wrong here."), hung_up=hung_up, cause=place_of(error))


def settled(admitted: Admitted, tally: Tally, verdict: Verdict, *, at: datetime, total_ms: float) -> Settled:
    """What is written of one request: its usage, its entry in the journal, what it pays."""
    flight = admitted.flight(tally.zone) if tally.slot is None else tally.slot.flight
    ending = Ending(
        outcome=verdict.outcome,
        status=_status(admitted, verdict),
        finish_reason=tally.finish_reason if verdict.outcome == "completed" else None,
        queue_ms=tally.queue_ms + admitted.arrival.queued_s * 1000,
        ttft_ms=tally.ttft_ms,
        total_ms=total_ms,
        at=at,
    )
    return settle_flight(
        flight, _count(admitted, tally, verdict), ending, f"inference.{verdict.outcome}", admitted.grant.actor
    )


def _count(admitted: Admitted, tally: Tally, verdict: Verdict) -> TokenCount:
    if not tally.heard:
        return TokenCount(
            0, 0, 0
        )  # the engine never spoke: whatever it did, nothing says so, and guesses are not billed
    if verdict.outcome == "completed" or (verdict.hung_up and not admitted.streamed):
        return tally.count()
    sent = tally.sent()
    if not verdict.hung_up and (not admitted.streamed or not sent.output_tokens):
        return TokenCount(0, 0, 0)  # whoever waited to the end and was given nothing pays nothing
    return sent


def _status(admitted: Admitted, verdict: Verdict) -> int:
    if verdict.hung_up and verdict.outcome == "cancelled":
        return _CLIENT_CLOSED_REQUEST
    return 200 if verdict.error is None else error_status(verdict.error, admitted.arrival.dialect)
