"""Lots as a child would keep them: every nano-unit is burned by itself, at the moment when it is spent."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

GRACE = timedelta(days=30)


@dataclass
class NaiveLot:
    id: str
    promotional: bool
    priority: int
    effective: datetime
    expires: datetime | None
    amount: int
    left: int = 0
    came: bool = False
    voided: bool = False

    @property
    def key(self) -> tuple[int, bool, float, int, datetime, str]:
        expires_s = 0.0 if self.expires is None else self.expires.timestamp()
        return (self.priority, self.expires is None, expires_s, int(not self.promotional), self.effective, self.id)

    def is_over(self, now: datetime) -> bool:
        return self.voided or (self.expires is not None and self.expires <= now)


@dataclass
class NaiveHold:
    id: str
    at: datetime
    left: int


@dataclass
class NaiveLots:
    lots: dict[str, NaiveLot] = field(default_factory=dict[str, NaiveLot])
    holds: dict[str, NaiveHold] = field(default_factory=dict[str, NaiveHold])
    charges: dict[str, list[list[str]]] = field(default_factory=dict[str, list[list[str]]])
    gone: int = 0

    @property
    def balance(self) -> int:
        return sum(each.left for each in self.lots.values())

    @property
    def available(self) -> int:
        return self.balance - sum(each.left for each in self.holds.values())

    def grant(self, lot: NaiveLot, now: datetime) -> None:
        self.lots[lot.id] = lot
        if lot.effective <= now:
            lot.came, lot.left = True, lot.amount

    def next_lot(self, left: dict[str, int], when: datetime) -> str:
        some = [each for each in self.lots.values() if left[each.id]]
        valid = [each for each in some if each.effective <= when and (each.expires is None or when < each.expires)]
        later = [each for each in some if each.effective > when]
        if valid or later:
            return min(valid or later, key=lambda each: each.key).id
        return max(some, key=lambda each: (each.expires, each.key)).id

    def burn(self, charge: str, amount: int, when: datetime) -> None:
        left = {each.id: each.left for each in self.lots.values()}
        parts: list[list[str]] = []
        for _ in range(amount):
            name = self.next_lot(left, when)
            left[name] -= 1
            if not parts or parts[-1][0] != name:
                parts.append([])
            parts[-1].append(name)
        for name, rest in left.items():
            self.lots[name].left = rest
        self.charges[charge] = parts

    def sweep(self, now: datetime) -> dict[str, int]:
        for each in self.lots.values():
            if not each.came and not each.voided and each.effective <= now:
                each.came, each.left = True, each.amount
        free = {each.id: each.left for each in self.lots.values()}
        for hold in sorted(self.holds.values(), key=lambda one: (one.at, one.id)):
            for _ in range(hold.left):
                free[self.next_lot(free, hold.at)] -= 1
        booked = {each.id: free[each.id] for each in self.lots.values() if each.is_over(now) and free[each.id]}
        for name, amount in booked.items():
            self.lots[name].left -= amount
            self.gone += amount
        return booked

    def correct(self, name: str, charge: str, amount: int, now: datetime) -> bool:
        parts = self.charges[charge]
        if sum(map(len, parts)) < amount:
            return False
        number = 0
        for part in reversed(parts):
            back, amount = min(len(part), amount), amount - min(len(part), amount)
            if not back:
                continue
            lot = self.lots[part[0]]
            del part[:back]
            if lot.is_over(now):
                expires = None if lot.expires is None else now + GRACE
                new = NaiveLot(f"{name}:{number}", lot.promotional, lot.priority, now, expires, back)
                self.grant(new, now)
            else:
                lot.left += back
            number += 1
        return True
