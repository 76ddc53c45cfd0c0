"""What someone is told whose request a limit stops: which limit, what is left, and when to come again."""

from collections.abc import Sequence
from decimal import Decimal

from galerne.kernel import RateLimited
from galerne.metering.limits import PoolSpec
from galerne.metering.pool_laws import Short

_WHOSE = {
    "key": "This key's",
    "workspace": "This workspace's",
    "organisation": "This organisation's",
    "plan": "This organisation's",
    "model": "This model's",
}
_PER = {"minute": "per minute", "5h": "per 5 hours", "day": "per day", "week": "per week", "month": "per month"}


def limit_reached(refused: Sequence[tuple[PoolSpec, int, Short]]) -> RateLimited:
    """The error for a request that some pools refused, each with what it needed of that pool.

    The pool that keeps it waiting longest speaks; one that is too small for the request however long it waits comes
    first, and then says so.
    """
    pool, need, short = max(refused, key=lambda each: (_never(each[0], each[1]), each[2].retry_after_ms))
    whose, pause_s = _WHOSE[pool.scope], short.retry_after_ms / 1000
    limit, needed, left = (_shown(pool, amount) for amount in (pool.amount, need, short.left))
    if _never(pool, need):
        said = f"{whose} limit is {limit} {_what(pool)}, and this request may need {needed}. Ask for fewer."
    else:
        # Of what everybody shares only that it is used up: how much is left would tell of other people's use.
        rest = "" if pool.scope == "model" else f": {left} left, {needed} needed"
        reached = f"{whose} limit of {limit} {_what(pool)} is reached{rest}."
        said = f"{reached} Try again in {pause_s:.1f} s."
    return RateLimited(said, retry_after_s=pause_s)


def _never(pool: PoolSpec, need: int) -> bool:
    return pool.law != "bucket" and need > pool.amount


def _what(pool: PoolSpec) -> str:
    if pool.quantity == "concurrent":
        return "requests at once"
    return f"{pool.currency if pool.quantity == 'nano' else pool.quantity} {_PER[pool.window]}"


def _shown(pool: PoolSpec, amount: int) -> str:
    if pool.quantity != "nano":
        return str(amount)
    return f"{Decimal(amount).scaleb(-9).normalize():f}"
