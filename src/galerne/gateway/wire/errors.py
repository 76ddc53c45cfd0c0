"""How a refusal looks on the wire: one body that both SDKs parse, statuses and codes of the caller's dialect.

OpenAI's clients read the nested `error`, Mistral's the top level and, for 422, `detail`. Nothing of a request's content
is ever quoted back: a problem names the field, not its value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from galerne.gateway.dialect import Dialect
from galerne.kernel import BadRequest, GalerneError, Unprocessable

__all__ = [
    "FieldProblem",
    "InvalidFields",
    "UnknownFields",
    "error_body",
    "error_event",
    "error_headers",
    "error_status",
]

_TYPES = {403: "permission_error", 429: "rate_limit_error"}  # as OpenAI's API answers; other 4xx are invalid requests
# Codes that Mistral's API is known to send; every other error keeps our own code.
_MISTRAL_CODES = {"rate_limit_exceeded": "1300", "model_not_found": "1500", "service_tier_capacity_exceeded": "3505"}
_MISTRAL_TYPES = {"rate_limit_exceeded": "rate_limited", "model_not_found": "invalid_model"}
_RETRIABLE = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field at fault: `path` as in `messages[0].role`, `loc` the same in steps, `kind` as pydantic names it."""

    path: str
    loc: tuple[str | int, ...]
    kind: str
    message: str


class InvalidFields(BadRequest):
    """Fields of the wrong type or out of range: 400 in OpenAI's dialect, 422 with `detail` in Mistral's."""

    code = "invalid_value"

    def __init__(self, problems: tuple[FieldProblem, ...]) -> None:
        first = problems[0]
        super().__init__(f"{first.path or 'body'}: {first.message}", param=first.path or None)
        self.problems = problems


class UnknownFields(Unprocessable):
    """Fields that no dialect has, sent with a strict key: 422 in both dialects."""

    code = "extra_forbidden"

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"{names[0]}: this field is not known, and this key refuses unknown fields.", param=names[0])
        self.problems = tuple(
            FieldProblem(name, (name,), "extra_forbidden", "Extra inputs are not permitted") for name in names
        )


def error_status(error: GalerneError, dialect: Dialect) -> int:
    """The HTTP status of `error` in `dialect`."""
    return 422 if isinstance(error, InvalidFields) and dialect == "mistral" else error.status


def _fields(error: GalerneError, dialect: Dialect) -> dict[str, Any]:
    status = error_status(error, dialect)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = error.code
    if dialect == "mistral":
        kind = _MISTRAL_TYPES.get(error.code, kind)
        code = _MISTRAL_CODES.get(error.code, code)
    return {"message": error.message, "type": kind, "param": error.param, "code": code}


def error_body(error: GalerneError, dialect: Dialect) -> bytes:
    """The JSON body of `error`: nested for OpenAI's clients, with top-level copies and `detail` for Mistral's."""
    fields = _fields(error, dialect)
    body: dict[str, Any] = {
        "error": fields,
        "object": "error",
        **fields,
        "raw_status_code": error_status(error, dialect),
    }
    if isinstance(error, InvalidFields | UnknownFields):
        body["detail"] = [
            {"type": problem.kind, "loc": ["body", *problem.loc], "msg": problem.message} for problem in error.problems
        ]
    return msgspec.json.encode(body)


def error_event(error: GalerneError, dialect: Dialect, chunk: Mapping[str, Any] | None = None) -> bytes:
    """One SSE event that ends a stream badly; `chunk` holds its fields besides `error`.

    OpenAI's clients raise `APIError` on `error`. Mistral's clients parse every event as a chunk, so in that dialect the
    event is also a chunk whose `finish_reason` is `error` (Mistral's own value).
    """
    return b"data: " + msgspec.json.encode({**(chunk or {}), "error": _fields(error, dialect)}) + b"\n\n"


def error_headers(error: GalerneError, dialect: Dialect) -> list[tuple[bytes, bytes]]:
    """The headers that tell a client whether and when to try again (both SDKs read different ones)."""
    headers: list[tuple[bytes, bytes]] = [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
    if error.retry_after_s is not None:
        wait_s = max(0.0, error.retry_after_s)
        headers.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
        headers.append((b"retry-after-ms", str(math.ceil(wait_s * 1000)).encode()))
    retriable = error_status(error, dialect) in _RETRIABLE
    headers.append((b"x-should-retry", b"true" if retriable else b"false"))
    return headers
