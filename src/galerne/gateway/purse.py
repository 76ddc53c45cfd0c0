"""What one process holds of one account's money: holds granted by the ledger, drawn on by requests. Pure in time.

Nothing is drawn that the ledger does not hold back, so processes together never spend more than an account has. What
one holds while another is refused is at most what its requests under way have reserved, plus a sixteenth of what the
account had left, for at most two seconds after its last use.
"""

from dataclasses import dataclass

from msgspec import Struct

from galerne.metering.lease_book import HELD_MS, SKEW_MS

__all__ = ["Draw", "Hold", "Purse"]

_SHARE = 16
_REMEMBERED_MS = 1000
_SLOT_MS = 1000


@dataclass(slots=True, eq=False)
class Hold:
    """One hold of the ledger: `available` may be reserved, `in_flight` is, `unwritten` was used and is not settled.

    It is `fresh` until something was reserved: those who asked for it have not come for it yet.
    """

    id: str
    amount: int
    until_ms: int
    available: int
    in_flight: int = 0
    unwritten: int = 0
    used_at_ms: int = 0
    fresh: bool = True

    @property
    def busy(self) -> bool:
        """Whether requests still have to be settled from it."""
        return bool(self.in_flight or self.unwritten)


class Draw(Struct, frozen=True):
    """What one request has reserved, and from which hold."""

    hold: Hold
    amount: int


class Purse:
    """The holds of one pair of accounts."""

    def __init__(self, debit_account_id: str, credit_account_id: str) -> None:
        self.debit_account_id = debit_account_id
        self.credit_account_id = credit_account_id
        self.holds: list[Hold] = []
        self._left: int | None = None
        self._refused_until_ms = 0
        self._slot_end_ms = 0
        self._use = 0
        self._use_before = 0

    def reserve(self, amount: int, now_ms: int) -> Draw | None:
        """Set `amount` aside for a request, or None when no hold has as much and the account must be asked."""
        for hold in self.holds:
            if hold.available >= amount and now_ms < hold.until_ms:
                hold.available -= amount
                hold.in_flight += amount
                hold.used_at_ms = now_ms
                hold.fresh = False
                self._roll(now_ms)
                self._use += amount
                return Draw(hold, amount)
        return None

    def release(self, draw: Draw) -> None:
        """Undo `reserve`: the request was refused by a limit."""
        self._use -= draw.amount
        self.settle(draw, 0)

    def settle(self, draw: Draw, used: int) -> None:
        """Replace a reservation by what was used, which is no more."""
        hold = draw.hold
        hold.in_flight -= draw.amount
        hold.available += draw.amount - used
        hold.unwritten += used

    def pause_ms(self, need: int, now_ms: int) -> int:
        """0 if the account may be asked for `need`, or for how long its last refusal stands for that."""
        if now_ms >= self._refused_until_ms or (self._left is not None and need <= self._left):
            return 0
        return self._refused_until_ms - now_ms

    def most(self, need: int, now_ms: int) -> int:
        """How much to ask for when `need` is missing: with it about a second's use, but only while plenty is left."""
        self._roll(now_ms)
        recent = max(0, self._use, self._use_before)
        return need + (recent if self._left is None else min(recent, self._left // _SHARE))

    def granted(self, hold_id: str, amount: int, left: int | None, expires_at_ms: int, now_ms: int) -> None:
        """The ledger holds `amount` back; `left` is what the account has beyond, None without a bound."""
        self._left = left
        self.holds.append(Hold(hold_id, amount, expires_at_ms - SKEW_MS, amount, used_at_ms=now_ms))

    def refused(self, left: int, now_ms: int) -> None:
        """The account has only `left`, less than was asked for."""
        self._left = left
        self._refused_until_ms = now_ms + _REMEMBERED_MS

    def spent(self, now_ms: int, waiting: bool) -> list[Hold]:
        """The holds that are of no more use, taken out of the purse: to be released.

        Those are the ones that no request needs and none has drawn on lately; or at any time, when somebody waits for
        money, but for the fresh ones.
        """
        done = [
            hold
            for hold in self.holds
            if not hold.busy
            and ((waiting and not hold.fresh) or not hold.available or now_ms - hold.used_at_ms >= HELD_MS)
        ]
        if done:
            self.holds = [hold for hold in self.holds if hold not in done]
        return done

    @property
    def outstanding(self) -> int:
        """What is held and not reserved."""
        return sum(hold.available for hold in self.holds)

    def _roll(self, now_ms: int) -> None:
        if now_ms >= self._slot_end_ms:
            self._use_before = self._use if now_ms < self._slot_end_ms + _SLOT_MS else 0
            self._use = 0
            self._slot_end_ms = now_ms - now_ms % _SLOT_MS + _SLOT_MS
