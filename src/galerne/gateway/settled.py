"""The end of one request as it is written: what it used, what it owes, what the journal says. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from galerne.billing import Rates, cost_nano
from galerne.gateway.wire.answer import TokenCount
from galerne.governance import Actor, ActorKind
from galerne.journal import Entry
from galerne.ledger import Posting, Settlement
from galerne.metering import Outcome, UsageEvent

__all__ = ["Ending", "Flight", "Payment", "Quantity", "Settled", "recovered", "settle_flight", "spent"]

Quantity = Literal["requests", "tokens", "nano"]
_DIED = 500


class Payment(Struct, frozen=True):
    """From which hold and between which accounts a request is paid; it costs no more than `most_nano`."""

    hold_id: str
    debit_account_id: str
    credit_account_id: str
    most_nano: int


class Flight(Struct, frozen=True, kw_only=True):
    """All that is known of a request once its answer begins, except how it ends: enough to settle it without us.

    `leases` are those that its use is recorded with, and what each counts.
    """

    id: str
    organisation_id: str
    workspace_id: str | None
    key_id: str
    model: str
    model_version: str
    endpoint: str
    dialect: str
    tier: str
    zone: str
    streamed: bool
    started_at: datetime
    modifier_ppm: int
    rates: Rates | None = None
    payment: Payment | None = None
    leases: dict[str, Quantity] = {}

    def cost_nano(self, count: TokenCount) -> int:
        """What these tokens cost; 0 without a price."""
        if self.rates is None:
            return 0
        return cost_nano(self.rates, count.input_tokens, count.cached_tokens, count.output_tokens, self.modifier_ppm)


class Ending(Struct, frozen=True, kw_only=True):
    """How a request ended; times in milliseconds."""

    outcome: Outcome
    status: int
    finish_reason: str | None
    queue_ms: float
    ttft_ms: float | None
    total_ms: float
    at: datetime


class Settled(Struct, frozen=True):
    """One request's end: its usage, its entry in the journal, what it pays, and what it spent of which lease.

    It pays by `settlement` from the hold that it ran on, or by `posting` where that hold is gone. `cost_nano` is what
    it cost, paid or not.
    """

    event: UsageEvent
    entry: Entry
    settlement: Settlement | None = None
    spent: Mapping[str, int] = {}
    posting: Posting | None = None
    cost_nano: int = 0

    @property
    def paid_nano(self) -> int:
        """What is taken from the hold."""
        return 0 if self.settlement is None else self.settlement.amount_nano

    @property
    def charged_nano(self) -> int:
        """What is taken from the account, from the hold or without it."""
        owed = self.settlement or self.posting
        return 0 if owed is None else owed.amount_nano

    def second_best(self) -> "Settled | None":
        """The same to be tried when the ledger refuses it: paid without the hold, which another process gave back for
        dead; then unpaid, which the journal says. None when it is neither.
        """
        if self.settlement is not None:
            owed = self.settlement
            accounts = (owed.debit_account_id, owed.credit_account_id)
            posting = Posting(owed.id, *accounts, owed.amount_nano, owed.at, "the hold was gone")
            return replace(self, settlement=None, posting=posting, spent={})
        return None if self.posting is None else self.unpaid()

    def unpaid(self) -> "Settled":
        """The same without payment, which the journal says."""
        owed = self.settlement or self.posting
        detail = {**self.entry.detail, "paid_nano": 0, "unpaid_nano": 0 if owed is None else owed.amount_nano}
        return replace(self, settlement=None, posting=None, entry=replace(self.entry, detail=detail))


def spent(flight: Flight, count: TokenCount, nano: int) -> dict[str, int]:
    """What a request used of each lease that counts it."""
    used: dict[Quantity, int] = {"requests": 1, "tokens": count.total, "nano": nano}
    return {lease: used[quantity] for lease, quantity in flight.leases.items() if used[quantity]}


def settle_flight(flight: Flight, count: TokenCount, ending: Ending, action: str, actor: Actor) -> Settled:
    """The end of `flight`, in which `count` tokens were used by `actor`."""
    completed = ending.outcome == "completed"
    event = UsageEvent(
        id=flight.id,
        organisation_id=flight.organisation_id,
        workspace_id=flight.workspace_id,
        key_id=flight.key_id,
        model=flight.model,
        model_version=flight.model_version,
        endpoint=flight.endpoint,
        dialect=flight.dialect,
        input_tokens=count.input_tokens,
        cached_tokens=count.cached_tokens,
        output_tokens=count.output_tokens,
        estimated=count.estimated,
        streamed=flight.streamed,
        partial=not completed,
        outcome=ending.outcome,
        finish_reason=ending.finish_reason,
        status=ending.status,
        started_at=flight.started_at,
        queue_ms=ending.queue_ms,
        ttft_ms=ending.ttft_ms,
        total_ms=ending.total_ms,
        tier=flight.tier,
        zone=flight.zone,
    )
    nano = flight.cost_nano(count)
    paid = 0 if flight.payment is None else min(nano, flight.payment.most_nano)
    detail: dict[str, str | int | bool | None] = {
        "endpoint": flight.endpoint,
        "input_tokens": count.input_tokens,
        "cached_tokens": count.cached_tokens,
        "output_tokens": count.output_tokens,
        "finish_reason": ending.finish_reason,
        "status": ending.status,
        "paid_nano": paid,
    }
    if flight.payment is not None and paid < nano:
        detail["unpaid_nano"] = nano - paid  # an engine went beyond what it was asked for, and what was held
    entry = Entry(
        action=action,
        actor=actor,
        resource=f"model:{flight.model}@{flight.model_version}",
        outcome="done" if completed else "failed",
        at=ending.at,
        request_id=flight.id,
        detail=detail,
    )
    settlement = _settlement(flight, paid, ending.at)
    return Settled(event, entry, settlement, spent(flight, count, nano), cost_nano=nano)


def recovered(flight: Flight, count: TokenCount, at: datetime) -> Settled:
    """The end of a request whose process died: `count` is what was recorded as delivered, and nothing is guessed."""
    ending = Ending(outcome="failed", status=_DIED, finish_reason=None, queue_ms=0.0, ttft_ms=None, total_ms=0.0, at=at)
    actor = Actor(ActorKind.API_KEY, flight.key_id, flight.organisation_id, flight.workspace_id)
    return settle_flight(flight, count, ending, "inference.recovered", actor)


def _settlement(flight: Flight, paid: int, at: datetime) -> Settlement | None:
    payment = flight.payment
    if payment is None or not paid:
        return None
    accounts = (payment.debit_account_id, payment.credit_account_id)
    return Settlement(flight.id, payment.hold_id, *accounts, paid, at)
