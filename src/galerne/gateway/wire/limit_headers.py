"""How the dialects' rate-limit headers look: OpenAI's, with the time until a limit is as new, and Mistral's."""

from collections.abc import Iterable

from galerne.metering import Standing

__all__ = ["limit_headers"]

Header = tuple[bytes, bytes]

_MINUTE = ((b"requests", b"req", "requests"), (b"tokens", b"tokens", "tokens"))


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
    for openai, mistral, quantity in _MINUTE:
        found = tightest.get((quantity, "minute"))
        if found is not None:
            headers += _both(found, openai, mistral)
    month = tightest.get(("tokens", "month"))
    if month is not None:
        headers += _mistral(month, b"tokens-month")
    headers.append((b"x-ratelimit-tokens-query-cost", b"%d" % query_tokens))
    return headers


def _room(standing: Standing) -> tuple[int, int]:
    return standing.remaining, standing.limit


def _both(standing: Standing, openai: bytes, mistral: bytes) -> list[Header]:
    return [
        (b"x-ratelimit-limit-" + openai, b"%d" % standing.limit),
        (b"x-ratelimit-remaining-" + openai, b"%d" % standing.remaining),
        (b"x-ratelimit-reset-" + openai, _duration(standing.reset_ms or 0)),
        *_mistral(standing, mistral + b"-minute"),
    ]


def _mistral(standing: Standing, name: bytes) -> list[Header]:
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % standing.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % standing.remaining),
    ]


def _duration(milliseconds: int) -> bytes:
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, seconds = divmod(-(-milliseconds // 1000), 60)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
