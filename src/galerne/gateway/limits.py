"""Requests and tokens per minute for each key, as token buckets; pure in time: every function is told the moment.

A request reserves an estimate of its tokens on admission and is corrected to what it really used when it settles. The
counters live in this process: with N gateways, a key can use up to N times its limit.
"""

from collections import OrderedDict
from dataclasses import dataclass

from galerne.kernel import RateLimited

__all__ = ["Bucket", "Limits", "Standing", "limit_headers", "refill", "take", "wait_s"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A minute's worth (`per_minute`) that refills evenly; `level` may be negative after a correction."""

    per_minute: int
    level: float
    at_s: float


def refill(bucket: Bucket, now_s: float) -> Bucket:
    """The bucket at `now_s`; never fuller than one minute's worth, and time never runs backwards."""
    gained = max(0.0, now_s - bucket.at_s) * bucket.per_minute / 60
    return Bucket(bucket.per_minute, min(bucket.per_minute, bucket.level + gained), max(now_s, bucket.at_s))


def wait_s(bucket: Bucket, amount: float) -> float:
    """Seconds until `amount` may be taken; an amount larger than the bucket needs it full, not more."""
    missing = min(amount, float(bucket.per_minute)) - bucket.level
    # A millionth of a unit is rounding, not a debt: without it a bucket could say "wait 0 s" for ever.
    return max(0.0, missing * 60 / bucket.per_minute) if missing > 1e-6 else 0.0


def take(bucket: Bucket, amount: float) -> Bucket:
    """The bucket after `amount` was taken, or given back when negative."""
    return Bucket(bucket.per_minute, min(bucket.per_minute, bucket.level - amount), bucket.at_s)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands after a request was admitted; `cost` is the estimate of tokens that was reserved."""

    requests: Bucket
    tokens: Bucket
    cost: int


class Limits:
    """The buckets of the keys that were seen lately; beyond `capacity` the longest unused are forgotten."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[str, tuple[Bucket, Bucket]] = OrderedDict()

    def admit(self, key_id: str, per_minute: tuple[int, int], cost: int, now_s: float) -> Standing:
        """Reserve one request and `cost` tokens, or raise `RateLimited` (429) saying for how long to wait.

        `per_minute` holds the key's limits: requests, tokens. A limit that has changed starts with a full bucket.
        """
        requests, tokens = self._buckets(key_id, per_minute, now_s)
        pause_s = max(wait_s(requests, 1), wait_s(tokens, cost))
        if pause_s > 0:
            which = "requests" if wait_s(requests, 1) > 0 else "tokens"
            raise RateLimited(
                f"This key's limit of {which} per minute is reached. Try again in {pause_s:.1f} s.",
                retry_after_s=pause_s,
            )
        requests, tokens = take(requests, 1), take(tokens, cost)
        self._keys[key_id] = (requests, tokens)
        return Standing(requests, tokens, cost)

    def standing(self, key_id: str, per_minute: tuple[int, int], cost: int, now_s: float) -> Standing:
        """Where a key stands, nothing taken; `cost` is what its request would have reserved."""
        return Standing(*self._buckets(key_id, per_minute, now_s), cost)

    def correct(self, key_id: str, reserved: int, used: int, now_s: float) -> None:
        """Replace a reservation of `reserved` tokens by the `used` ones."""
        found = self._keys.get(key_id)
        if found is not None:
            self._keys[key_id] = (found[0], take(refill(found[1], now_s), used - reserved))

    def _buckets(self, key_id: str, per_minute: tuple[int, int], now_s: float) -> tuple[Bucket, Bucket]:
        found = self._keys.get(key_id)
        if found is None or (found[0].per_minute, found[1].per_minute) != per_minute:
            found = (Bucket(per_minute[0], per_minute[0], now_s), Bucket(per_minute[1], per_minute[1], now_s))
            while len(self._keys) >= self._capacity:
                self._keys.popitem(last=False)
        requests, tokens = refill(found[0], now_s), refill(found[1], now_s)
        self._keys[key_id] = (requests, tokens)
        self._keys.move_to_end(key_id)
        return requests, tokens


def limit_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """Both families of rate-limit headers: OpenAI's with reset durations, Mistral's per minute"""
    out: list[tuple[bytes, bytes]] = []
    for name, mistral, bucket in (
        (b"requests", b"req", standing.requests),
        (b"tokens", b"tokens", standing.tokens),
    ):
        limit, remaining = b"%d" % bucket.per_minute, b"%d" % max(0, int(bucket.level))
        reset = (bucket.per_minute - bucket.level) * 60 / bucket.per_minute
        out += (
            (b"x-ratelimit-limit-" + name, limit),
            (b"x-ratelimit-remaining-" + name, remaining),
            (b"x-ratelimit-reset-" + name, _duration(reset)),
            (b"x-ratelimit-limit-" + mistral + b"-minute", limit),
            (b"x-ratelimit-remaining-" + mistral + b"-minute", remaining),
        )
    out.append((b"x-ratelimit-tokens-query-cost", b"%d" % standing.cost))
    return out


def _duration(seconds: float) -> bytes:
    if seconds < 1:
        return b"%dms" % max(0, round(seconds * 1000))
    minutes, rest = divmod(seconds, 60)
    return b"%dm%ds" % (minutes, round(rest)) if minutes else b"%ds" % round(rest)
