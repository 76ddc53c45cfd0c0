"""How the dialects' rate-limit headers look: OpenAI's, with the time until a limit is as new, and Mistral's."""

from collections.abc import Iterable

from galerne.metering import Standing

__all__ = ["limit_headers"]

Header = tuple[bytes, bytes]

_LIMIT, _REMAINING, _RESET = b"x-ratelimit-limit-", b"x-ratelimit-remaining-", b"x-ratelimit-reset-"
_MINUTE = (
    (
        ("requests", "minute"),
        (_LIMIT + b"requests", _REMAINING + b"requests", _RESET + b"requests"),
        (_LIMIT + b"req-minute", _REMAINING + b"req-minute"),
    ),
    (
        ("tokens", "minute"),
        (_LIMIT + b"tokens", _REMAINING + b"tokens", _RESET + b"tokens"),
        (_LIMIT + b"tokens-minute", _REMAINING + b"tokens-minute"),
    ),
)


def limit_headers(standings: Iterable[Standing], query_tokens: int) -> list[Header]:
    """Both families of headers; of several pools of one kind the tightest speaks: the one with least remaining.

    Requests and tokens per minute in both families, tokens per month in Mistral's, and what this request reserved.
    """
    tightest: dict[tuple[str, str], Standing] = {}
    for standing in standings:
        kind = (standing.quantity, standing.window)
        if kind not in tightest or _room(standing) < _room(tightest[kind]):
            tightest[kind] = standing
    headers: list[Header] = []
    for kind, (limit, remaining, reset), mistral in _MINUTE:
        found = tightest.get(kind)
        if found is not None:
            most, left = b"%d" % found.limit, b"%d" % found.remaining
            headers += ((limit, most), (remaining, left), (reset, _duration(found.reset_ms or 0)))
            headers += ((mistral[0], most), (mistral[1], left))
    month = tightest.get(("tokens", "month"))
    if month is not None:
        headers.append((_LIMIT + b"tokens-month", b"%d" % month.limit))
        headers.append((_REMAINING + b"tokens-month", b"%d" % month.remaining))
    headers.append((b"x-ratelimit-tokens-query-cost", b"%d" % query_tokens))
    return headers


def _room(standing: Standing) -> tuple[int, int]:
    return standing.remaining, standing.limit


def _duration(milliseconds: int) -> bytes:
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, seconds = divmod(-(-milliseconds // 1000), 60)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
