"""What requests may use, set aside before they run: limits and money, from what this process has leased of both.

A request that finds enough at hand is admitted without asking anybody; otherwise it waits for one commit, in which the
database grants more or says that nothing is left. The arithmetic is that of `LeaseBook` and `Purse`, which are pure.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from msgspec import Struct

from galerne.gateway.metrics import GatewayMetrics, LeaseKind, LimitKind
from galerne.gateway.purse import Draw, Purse
from galerne.gateway.settled import Quantity
from galerne.gateway.terms import Terms
from galerne.kernel import Clock, GalerneError, Ids, RateLimited, Unavailable, invariant
from galerne.ledger import LARGEST_NANO, Granted, NewHold, Refused
from galerne.metering import LeaseBook, PoolSpec, Short, Standing, Take, Taken, limit_reached

__all__ = ["Answers", "Ask", "InsufficientQuota", "Need", "Orders", "Reservations", "Reserved"]

_MOST_ROUNDS = 256
MOST_BOOKS = 20_000
"""How many limits are in use at once, those of the last two seconds counted: 0.5 kB each."""

_RENEW_SHARE = 3
_PATIENCE_S = 2.0  # a database may hang; then what is at hand must do
_KINDS: Mapping[str, LimitKind] = {
    "requests": "requests",
    "tokens": "tokens",
    "nano": "money",
    "concurrent": "concurrent",
}
_LEASE_KINDS: Mapping[str, LeaseKind] = {"requests": "requests", "tokens": "tokens", "nano": "money"}


class InsufficientQuota(RateLimited):
    """The organisation's credit does not cover the most that the request can cost."""

    code = "insufficient_quota"


class Need(Struct, frozen=True):
    """What one request needs at most: `tokens`, and `nano` of the currency in which it is priced."""

    tokens: int
    nano: int

    def of(self, pool: PoolSpec, currency: str | None) -> int:
        """The amount that counts in a pool."""
        if pool.quantity == "tokens":
            return self.tokens
        if pool.quantity == "nano":
            return self.nano if pool.currency == currency else 0
        return 1


class Reserved(Struct, eq=False):
    """What was set aside for one request, until it is settled once."""

    terms: Terms
    need: Need
    parts: list[tuple[LeaseBook, int]] = []
    draw: Draw | None = None

    def leases(self) -> dict[str, Quantity]:
        """What is to be recorded of the request's use, by lease."""
        found: dict[str, Quantity] = {}
        for book, _ in self.parts:
            if book.lease_id is not None and book.pool.quantity != "concurrent":
                found[book.lease_id] = book.pool.quantity
        return found


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that found too little at hand; `served` becomes True once everything is reserved for it, or why not."""

    reserved: Reserved
    served: asyncio.Future[bool | GalerneError]
    rounds: int = 0


@dataclass(slots=True, eq=False)
class Ask:
    """What requests want of one pool or account in the next commit, in the order in which they came."""

    needs: list[int] = field(default_factory=list[int])
    waiters: list[Waiter] = field(default_factory=list[Waiter])


@dataclass(slots=True, eq=False)
class Orders:
    """What the next commit shall do for reservations, besides settling requests."""

    at: datetime
    now_ms: int
    expires_at_ms: int
    accounts: set[str] = field(default_factory=set[str])
    takes: list[Take] = field(default_factory=list[Take])
    holds: list[NewHold] = field(default_factory=list[NewHold])
    give_back: list[str] = field(default_factory=list[str])
    release: list[str] = field(default_factory=list[str])
    renew_leases: list[str] = field(default_factory=list[str])
    renew_holds: list[str] = field(default_factory=list[str])
    asks: dict[str, Ask] = field(default_factory=dict[str, Ask])


@dataclass(slots=True)
class Answers:
    """What the database said to `Orders`: to takes and holds in their order, and which leases and holds still exist.

    `errand` is what an errand returned.
    """

    takes: Sequence[Taken | Short] = ()
    holds: Sequence[Granted | Refused] = ()
    leases: frozenset[str] = frozenset()
    errand: Any = None
    open_holds: frozenset[str] = frozenset()


class Reservations:
    """Everything that this process, `holder`, has leased. `wake` is called when a commit should run soon."""

    def __init__(
        self, holder: str, ids: Ids, clock: Clock, metrics: GatewayMetrics, *, lease_s: float, wake: Callable[[], None]
    ) -> None:
        self._holder = holder
        self._ids = ids
        self._clock = clock
        self._metrics = metrics
        self._lease_ms = int(lease_s * 1000)
        self._wake = wake
        self._books: dict[str, LeaseBook] = {}
        self._purses: dict[tuple[str, str], Purse] = {}
        self._asks: dict[str, Ask] = {}
        self._look_due = False
        self._renew_at_ms = 0
        self._give_back: list[str] = []
        self._release: list[str] = []
        self.outage = False
        self._slow = False
        metrics.watch_leases(self._outstanding)

    async def reserve(self, terms: Terms, need: Need) -> Reserved:
        """What `need` takes of every pool and of the account, all of it or nothing.

        Raises `RateLimited` (429) of the tightest pool, `InsufficientQuota` (429) of an account, `Unavailable` (503)
        when the database does not answer.
        """
        reserved = Reserved(terms, need)
        missing = self._try(reserved)
        if not missing:
            return reserved
        waiter = Waiter(reserved, asyncio.get_running_loop().create_future())
        self._ask(waiter, missing)
        if await self._answer(waiter):
            return reserved
        self._slow = True
        if not self._try(reserved):
            return reserved
        raise _unasked()

    def standings(self, terms: Terms) -> list[Standing]:
        """Where the pools stand that a request with these terms draws from, but for those of a model.

        What is left of these, which everybody shares, would tell one organisation of another's use.
        """
        now_ms = self._now_ms()
        return [self._book(pool).standing(now_ms) for pool in terms.pools if pool.scope != "model"]

    def settle(self, reserved: Reserved, tokens: int, nano: int) -> None:
        """Replace what was reserved by what was used; `written` follows once that is committed."""
        used = Need(tokens, nano)
        currency = _currency(reserved.terms)
        for book, amount in reserved.parts:
            book.settle(amount, 0 if book.pool.quantity == "concurrent" else used.of(book.pool, currency))
        if reserved.draw is not None:
            self._purse(reserved.terms).settle(reserved.draw, min(nano, reserved.draw.amount))

    def undo(self, reserved: Reserved) -> None:
        """Give back what was reserved: the request did not run."""
        for book, amount in reserved.parts:
            book.release(amount)
        reserved.parts.clear()
        if reserved.draw is not None:
            self._purse(reserved.terms).release(reserved.draw)
            reserved.draw = None

    def written(self, reserved: Reserved, spent: Mapping[str, int], paid_nano: int) -> None:
        """What was used has been committed: of each lease, and of the hold."""
        for book, _ in reserved.parts:
            amount = spent.get(book.lease_id or "", 0)
            if amount:
                book.written(amount)
        if reserved.draw is not None:
            reserved.draw.hold.unwritten -= paid_nano

    def tick(self) -> None:
        """Have the next commit look for what is due: leases to renew, to give back, to correct. About once a second."""
        self._look_due = True
        self._wake()

    def orders(self) -> Orders | None:
        """What the next commit shall do, or None if nothing."""
        if not (self._asks or self._look_due):
            return None
        now_ms = self._now_ms()
        orders = Orders(self._clock.now(), now_ms, now_ms + self._lease_ms)
        orders.asks, self._asks = self._asks, {}
        for name, ask in orders.asks.items():
            book = self._books.get(name)
            if book is not None:
                orders.takes.append(self._take(book, ask, orders))
            else:
                self._ask_for_money(orders, name, ask)
        if self._look_due:
            self._look_due = False
            self._look(orders)
        orders.give_back, self._give_back = orders.give_back + self._give_back, []
        orders.release, self._release = orders.release + self._release, []
        if orders.holds or orders.release or orders.renew_holds:
            orders.accounts = {account for pair in self._purses for account in pair}
        return orders

    def done(self, orders: Orders, answers: Answers) -> None:
        """Take in what the database answered, and let those who asked try again."""
        self._slow = False
        now_ms = self._now_ms()
        for take, answer in zip(orders.takes, answers.takes, strict=True):
            self._answered(take, answer, now_ms)
        for new, granted in zip(orders.holds, answers.holds, strict=True):
            purse = self._purses[(new.debit_account_id, new.credit_account_id)]
            if isinstance(granted, Granted):
                self._metrics.lease_acquired("money")
                purse.granted(new.id, granted.amount_nano, granted.available_nano_after, new.expires_at_ms, now_ms)
            else:
                self._metrics.lease_refused("money")
                purse.refused(granted.available_nano, now_ms)
        self._renewed(orders, answers)
        # Here and now, in the order in which they came: nobody who comes later takes what was granted to them.
        for waiter in _waiters(orders):
            self._serve(waiter)

    def failed(self, orders: Orders) -> None:
        """The commit did not happen: nothing was granted, and nothing given back yet."""
        for take in orders.takes:
            book = self._books.get(take.pool.id)
            if book is not None:
                book.failed()
        self._give_back += orders.give_back
        # Perhaps only its confirmation was lost: then holds were granted that nobody here knows of.
        self._release += [*orders.release, *(new.id for new in orders.holds)]
        for waiter in _waiters(orders):
            if not waiter.served.done():
                waiter.served.set_result(False)

    def end(self) -> Orders:
        """Everything given back: for the last commit of this process, when nothing is under way any more."""
        now_ms = self._now_ms()
        orders = Orders(self._clock.now(), now_ms, now_ms + self._lease_ms)
        orders.give_back = [*self._give_back, *(book.lease_id for book in self._books.values() if book.lease_id)]
        orders.release = [*self._release, *(hold.id for purse in self._purses.values() for hold in purse.holds)]
        orders.accounts = {account for pair in self._purses for account in pair}
        return orders

    def _try(self, reserved: Reserved) -> list[tuple[str, int]]:
        """Reserve everything, or nothing and say of what is too little: pools' ids or an account's, and how much."""
        now_ms = self._now_ms()
        terms, need = reserved.terms, reserved.need
        currency = _currency(terms)
        missing: list[tuple[LeaseBook, int]] = []
        for pool in terms.pools:
            amount = need.of(pool, currency)
            book = self._books.get(pool.id)
            if book is None or book.pool is not pool:
                book = self._book(pool)
            enough = book.reserve(amount, now_ms) or (self._alone and book.reserve_unasked(amount, now_ms))
            (reserved.parts if enough else missing).append((book, amount))
        if missing:
            self.undo(reserved)
            self._refuse_if_known(missing, now_ms)
            return [(book.pool.id, amount) for book, amount in missing]
        if terms.accounts is not None and need.nano:
            purse = self._purse(terms)
            reserved.draw = purse.reserve(need.nano, now_ms)
            if reserved.draw is None:
                self.undo(reserved)
                pause_ms = purse.pause_ms(need.nano, now_ms)
                if pause_ms or need.nano > LARGEST_NANO:  # no account holds that much, and no hold may ask for it
                    self._metrics.limited("money")
                    raise InsufficientQuota(
                        "Your organisation's credit does not cover the most that this request can cost. "
                        "Lower max_tokens, or have credit added.",
                        retry_after_s=max(1.0, pause_ms / 1000),
                    )
                return [("\n".join(terms.accounts), need.nano)]
        return []

    def _refuse_if_known(self, missing: Sequence[tuple[LeaseBook, int]], now_ms: int) -> None:
        refused = [(book.pool, amount, book.short(now_ms)) for book, amount in missing if book.pause_ms(amount, now_ms)]
        if refused:
            self._metrics.limited(_KINDS[refused[0][0].quantity])
            raise limit_reached(refused)

    @property
    def _alone(self) -> bool:
        return self.outage or self._slow

    def _ask(self, waiter: Waiter, missing: Sequence[tuple[str, int]]) -> None:
        for name, amount in missing:
            ask = self._asks.get(name)
            if ask is None:
                ask = self._asks[name] = Ask()
            ask.needs.append(amount)
            ask.waiters.append(waiter)
        self._wake()

    async def _answer(self, waiter: Waiter) -> bool:
        """Whether everything is reserved; False when the database does not answer in time."""
        served = waiter.served
        try:
            while True:
                rounds = waiter.rounds
                await asyncio.wait((served,), timeout=_PATIENCE_S)
                if served.done():
                    return _told(served.result())
                if waiter.rounds == rounds:
                    served.cancel()
                    return False
        except asyncio.CancelledError:
            if served.done() and not served.cancelled() and served.result() is True:
                self.undo(waiter.reserved)
            served.cancel()
            raise

    def _serve(self, waiter: Waiter) -> None:
        if waiter.served.done():
            return
        waiter.rounds += 1
        try:
            missing = self._try(waiter.reserved)
            if missing and waiter.rounds >= _MOST_ROUNDS:
                raise Unavailable("So many requests compete for this limit that none was granted.", retry_after_s=1)
        except GalerneError as error:
            waiter.served.set_result(error.again())
            return
        if missing:
            self._ask(waiter, missing)
        else:
            waiter.served.set_result(True)

    def _take(self, book: LeaseBook, ask: Ask, orders: Orders) -> Take:
        least, need = min(ask.needs), sum(ask.needs)
        return book.take(least, need, orders.now_ms, orders.expires_at_ms, keep=self._alone)

    def _ask_for_money(self, orders: Orders, name: str, ask: Ask) -> None:
        debit, credit = name.split("\n")
        purse = self._purses[(debit, credit)]
        # What no request needs goes back first, so that the account has it for those who wait.
        if not self._alone:
            orders.release += [hold.id for hold in purse.spent(orders.now_ms, waiting=True)]
        most = min(LARGEST_NANO, max(min(ask.needs), purse.most(sum(ask.needs), orders.now_ms)))
        orders.holds.append(
            NewHold(
                id=self._ids.new(),
                debit_account_id=debit,
                credit_account_id=credit,
                least_nano=min(ask.needs),
                most_nano=most,
                holder=self._holder,
                expires_at_ms=orders.expires_at_ms,
                at=orders.at,
            )
        )

    def _look(self, orders: Orders) -> None:
        now_ms = orders.now_ms
        if not self._alone:  # else what is at hand is all there is
            self._tidy(orders)
        if now_ms >= self._renew_at_ms:
            self._renew_at_ms = now_ms + self._lease_ms // _RENEW_SHARE
            orders.renew_leases = [book.lease_id for book in self._books.values() if book.lease_id is not None]
            orders.renew_holds = [hold.id for purse in self._purses.values() for hold in purse.holds]

    def _tidy(self, orders: Orders) -> None:
        now_ms = orders.now_ms
        for name, book in list(self._books.items()):
            if name in orders.asks:
                continue
            if book.due(now_ms):
                orders.takes.append(book.take(0, 0, now_ms, orders.expires_at_ms))
            elif book.idle(now_ms):
                if book.lease_id is not None:
                    orders.give_back.append(book.lease_id)
                del self._books[name]
        for key, purse in list(self._purses.items()):
            orders.release += [hold.id for hold in purse.spent(now_ms, waiting=False)]
            if not purse.holds and not self._release and not orders.release and "\n".join(key) not in orders.asks:
                del self._purses[key]

    def _answered(self, take: Take, answer: Taken | Short, now_ms: int) -> None:
        book = self._books[take.pool.id]
        kind = _LEASE_KINDS.get(take.pool.quantity)
        if isinstance(answer, Short):
            book.refuse(answer, now_ms)
            if kind is not None:
                self._metrics.lease_refused(kind)
            return
        self._books[take.pool.id] = book.accept(answer, now_ms)
        if kind is not None and answer.amount:
            self._metrics.lease_acquired(kind)

    def _renewed(self, orders: Orders, answers: Answers) -> None:
        if not (orders.renew_leases or orders.renew_holds):
            return
        asked = set(orders.renew_leases)
        for book in self._books.values():
            if book.lease_id in asked:
                if book.lease_id in answers.leases:
                    book.renewed(orders.expires_at_ms)
                else:
                    book.lost()
        for purse in self._purses.values():
            for hold in purse.holds:
                if hold.id in answers.open_holds:
                    hold.until_ms = max(hold.until_ms, orders.expires_at_ms - 1000)

    def _book(self, pool: PoolSpec) -> LeaseBook:
        book = self._books.get(pool.id)
        if book is None:
            if len(self._books) >= MOST_BOOKS:
                raise Unavailable("Too many limits are in use at once.", retry_after_s=1)
            book = self._books[pool.id] = LeaseBook(pool, self._holder)
        book.pool = pool
        return book

    def _purse(self, terms: Terms) -> Purse:
        invariant(terms.accounts is not None, "only a request that is charged has a purse")
        accounts = cast(tuple[str, str], terms.accounts)
        found = self._purses.get(accounts)
        if found is None:
            found = self._purses[accounts] = Purse(*accounts)
        return found

    def _outstanding(self) -> dict[LeaseKind, int]:
        found: dict[LeaseKind, int] = {"requests": 0, "tokens": 0, "money": 0}
        for book in self._books.values():
            kind = _LEASE_KINDS.get(book.pool.quantity)
            if kind is not None:
                found[kind] += max(0, book.available)
        found["money"] += sum(purse.outstanding for purse in self._purses.values())
        return found

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _told(served: bool | GalerneError) -> bool:
    if isinstance(served, GalerneError):
        raise served.again()
    return served


def _unasked() -> Unavailable:
    return Unavailable("Limits cannot be checked now.", code="database_unavailable", retry_after_s=1)


def _currency(terms: Terms) -> str | None:
    return None if terms.rates is None else terms.rates.currency


def _waiters(orders: Orders) -> list[Waiter]:
    """Those who wait for `orders`, each once, as they came."""
    found = {id(waiter): waiter for ask in orders.asks.values() for waiter in ask.waiters}
    return list(found.values())
