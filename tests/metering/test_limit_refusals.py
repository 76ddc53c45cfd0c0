"""What a refused caller reads."""

from dataclasses import replace

import pytest

from galerne.metering import PoolSpec, Short, limit_reached

REQUESTS = PoolSpec("r:k", "requests", "minute", 60)
TOKENS = PoolSpec("t:o", "tokens", "month", 1000, "plan")
PLACES = PoolSpec("c:m", "concurrent", "none", 8, "model")
MONEY = PoolSpec("n:w", "nano", "day", 20 * 10**9, "workspace", "EUR")


def short(left: int, retry_after_ms: int) -> Short:
    return Short("r:k", left, retry_after_ms, None)


@pytest.mark.parametrize(
    ("refused", "said", "pause_s"),
    [
        (
            [(REQUESTS, 1, short(0, 1500))],
            "This key's limit of 60 requests per minute is reached: 0 left, 1 needed. Try again in 1.5 s.",
            1.5,
        ),
        (
            [(REQUESTS, 1, short(0, 1500)), (TOKENS, 300, short(200, 90_000))],
            "This organisation's limit of 1000 tokens per month is reached: 200 left, 300 needed. Try again in 90.0 s.",
            90,
        ),
        (
            [(TOKENS, 2000, short(200, 90_000)), (REQUESTS, 1, short(0, 100_000))],
            "This organisation's limit is 1000 tokens per month, and this request may need 2000. Ask for fewer.",
            90,
        ),
        (
            [(PLACES, 1, short(0, 200))],
            "This model's limit of 8 requests at once is reached. Try again in 0.2 s.",
            0.2,
        ),
        (
            [(MONEY, 7_000_000, short(500, 1000))],
            "This workspace's limit of 20 EUR per day is reached: 0.0000005 left, 0.007 needed. Try again in 1.0 s.",
            1,
        ),
    ],
)
def test_the_limit_that_keeps_it_waiting_longest_speaks(
    refused: list[tuple[PoolSpec, int, Short]], said: str, pause_s: float
) -> None:
    error = limit_reached(refused)
    assert (error.status, error.message, error.retry_after_s) == (429, said, pause_s)


def test_a_bucket_is_never_too_small_for_a_request() -> None:
    small = replace(REQUESTS, quantity="tokens", amount=10)
    assert "Try again" in limit_reached([(small, 50, short(3, 1000))]).message
