"""Credit as a child would keep it: lots in a dictionary, and a list of who paid whom."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from tests.ledger.naive_lots import GRACE, NaiveLot


@dataclass
class FundedLot(NaiveLot):
    funding: str = ""


@dataclass
class NaiveHold:
    id: str
    at: datetime
    left: int
    expires: datetime


@dataclass
class NaiveCredit:
    """One customer's credit. `books` are balances by account, credits positive; all moves are made there."""

    account: str
    books: Counter[str]
    lots: dict[str, FundedLot] = field(default_factory=dict[str, FundedLot])
    holds: dict[str, NaiveHold] = field(default_factory=dict[str, NaiveHold])
    charges: dict[str, list[tuple[str, int]]] = field(default_factory=dict[str, list[tuple[str, int]]])

    @property
    def held(self) -> int:
        return sum(each.left for each in self.holds.values())

    @property
    def available(self) -> int:
        return sum(each.left for each in self.lots.values()) - self.held

    def move(self, debit: str, credit: str, amount: int) -> None:
        self.books[debit] -= amount
        self.books[credit] += amount

    def grant(self, lot: FundedLot, now: datetime) -> None:
        self.lots[lot.id] = lot
        if lot.effective <= now:
            self.come(lot)

    def come(self, lot: FundedLot) -> None:
        lot.came, lot.left = True, lot.amount
        self.move(lot.funding, self.account, lot.amount)

    def next_lot(self, left: dict[str, int], when: datetime) -> str:
        some = [each for each in self.lots.values() if left[each.id]]
        valid = [each for each in some if each.effective <= when and (each.expires is None or when < each.expires)]
        later = [each for each in some if each.effective > when]
        if valid or later:
            return min(valid or later, key=lambda each: each.key).id
        return max(some, key=lambda each: (each.expires, each.key)).id

    def taken(self, left: dict[str, int], amount: int, when: datetime) -> list[tuple[str, int]]:
        parts: list[tuple[str, int]] = []
        while amount:
            name = self.next_lot(left, when)
            part = min(amount, left[name])
            left[name], amount = left[name] - part, amount - part
            parts.append((name, part))
        return parts

    def charge(self, name: str, other: str, amount: int, when: datetime) -> None:
        left = {each.id: each.left for each in self.lots.values()}
        self.charges[name] = self.taken(left, amount, when)
        for lot, rest in left.items():
            self.lots[lot].left = rest
        self.move(self.account, other, amount)

    def sweep(self, now: datetime, breakage: str) -> dict[str, int]:
        for each in self.lots.values():
            if not each.came and not each.voided and each.effective <= now:
                self.come(each)
        free = {each.id: each.left for each in self.lots.values()}
        for hold in sorted(self.holds.values(), key=lambda one: (one.at, one.id)):
            self.taken(free, hold.left, hold.at)
        booked = {each.id: free[each.id] for each in self.lots.values() if each.is_over(now) and free[each.id]}
        for name, amount in booked.items():
            lot = self.lots[name]
            lot.left -= amount
            self.move(self.account, lot.funding if lot.voided else breakage, amount)
        return booked

    def give_back(self, name: str, charge: tuple[str, str], amount: int, now: datetime) -> bool:
        """Of a charge to another account, last burned first; what has ended comes back as a new lot."""
        parts = self.charges[charge[0]]
        if sum(part for _, part in parts) < amount:
            return False
        self.move(charge[1], self.account, amount)
        number = 0
        for index in reversed(range(len(parts))):
            lot_id, part = parts[index]
            back = min(part, amount)
            if not back:
                continue
            parts[index], amount = (lot_id, part - back), amount - back
            lot = self.lots[lot_id]
            if lot.is_over(now):
                expires = None if lot.expires is None else now + GRACE
                new = FundedLot(
                    f"{name}:{number}", lot.promotional, lot.priority, now, expires, back, funding=lot.funding
                )
                new.came, new.left = True, back
                self.lots[new.id] = new
            else:
                lot.left += back
            number += 1
        return True
