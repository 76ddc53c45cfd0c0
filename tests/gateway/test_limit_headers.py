"""The headers that say what is left, in both families."""

import pytest

from galerne.gateway.wire.limit_headers import limit_headers
from galerne.metering import Standing


def test_the_tightest_pool_of_each_kind_speaks_in_both_families() -> None:
    standings = [
        Standing("requests", "minute", 60, 12, 48_000),
        Standing("requests", "minute", 600, 500, 10_000),
        Standing("tokens", "minute", 1000, 700, 18_000),
        Standing("tokens", "minute", 900, 700, 12_000),
        Standing("tokens", "month", 10**9, 5000, 10**9),
        Standing("tokens", "day", 10, 1, 1000),
        Standing("concurrent", "none", 4, 1, None),
    ]
    assert dict(limit_headers(standings, 321)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"12",
        b"x-ratelimit-reset-requests": b"48s",
        b"x-ratelimit-limit-req-minute": b"60",
        b"x-ratelimit-remaining-req-minute": b"12",
        b"x-ratelimit-limit-tokens": b"900",
        b"x-ratelimit-remaining-tokens": b"700",
        b"x-ratelimit-reset-tokens": b"12s",
        b"x-ratelimit-limit-tokens-minute": b"900",
        b"x-ratelimit-remaining-tokens-minute": b"700",
        b"x-ratelimit-limit-tokens-month": b"1000000000",
        b"x-ratelimit-remaining-tokens-month": b"5000",
        b"x-ratelimit-tokens-query-cost": b"321",
    }


@pytest.mark.parametrize(
    ("reset_ms", "shown"),
    [(0, b"0ms"), (999, b"999ms"), (1000, b"1s"), (1001, b"2s"), (59_999, b"1m0s"), (90_000, b"1m30s"), (None, b"0ms")],
)
def test_a_reset_is_a_duration_never_too_short(reset_ms: int | None, shown: bytes) -> None:
    headers = dict(limit_headers([Standing("tokens", "minute", 9, 1, reset_ms)], 0))
    assert headers[b"x-ratelimit-reset-tokens"] == shown
