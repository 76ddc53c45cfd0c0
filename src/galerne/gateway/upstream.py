"""Talks to engines over HTTP, on unix sockets or TCP, and turns whatever goes wrong there into typed errors."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from galerne.gateway.routing import Replica
from galerne.kernel import BadRequest, GalerneError, RateLimited, Unavailable, UpstreamFailed
from galerne.kernel.http_client import Address, Answer, Client, Lost, NotConnected, request_to

__all__ = ["ConnectFailed", "ConnectionLost", "OptionsRefused", "Upstream", "engine_error", "refusal"]

_MOST_TARGETS = 1_000
_LONGEST_REFUSAL = 64 * 1024
_LONGEST_MESSAGE = 2_000
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OPTION_NAMES = ("continuous_usage", "stream_options", "include_usage")


class ConnectFailed(Unavailable):
    """The engine could not be reached: nothing was sent, so another replica may be tried."""

    code = "upstream_unreachable"


class ConnectionLost(UpstreamFailed):
    """The connection ended before the engine answered: it may have begun to work."""

    code = "upstream_lost"


class OptionsRefused(BadRequest):
    """The engine seems not to know the stream options; `continuous` when only running usage is refused.

    Only seems: its message may quote the caller. Whether it was the options shows in a second try without them.
    """

    def __init__(self, refused: BadRequest, *, continuous: bool) -> None:
        super().__init__(refused.message, code=refused.code, param=refused.param)
        self.continuous = continuous


class Upstream:
    """The connections to every engine."""

    def __init__(self) -> None:
        self._client = Client()
        self._targets: dict[tuple[str, Path | None, str | None, str], tuple[Address, bytes]] = {}

    def close(self) -> None:
        """Close every connection that is idle."""
        self._client.close()

    async def post(self, replica: Replica, path: str, body: bytes, request_id: str, within_s: float) -> Answer:
        """The engine's answer, its body not yet read; the caller closes it.

        Raises `ConnectFailed` when nothing was sent, `ConnectionLost` when that cannot be known, `TimeoutError` when
        the answer does not begin within `within_s`. Never follows a redirect.
        """
        address, head = self._target(replica, path)
        try:
            return await self._client.send(
                address, head + b"x-request-id: %b\r\n" % request_id.encode(), body, within_s
            )
        except NotConnected as error:
            raise ConnectFailed("The engine of this model cannot be reached.", retry_after_s=1) from error
        except Lost as error:
            raise ConnectionLost("The engine of this model hung up before it answered.") from error

    def _target(self, replica: Replica, path: str) -> tuple[Address, bytes]:
        key = (replica.base_url, replica.socket, replica.api_key, path)
        found = self._targets.get(key)
        if found is None:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()  # keys are rotated and addresses change; making all of them again costs little
            found = self._targets[key] = _target(replica, path)
        return found


def _target(replica: Replica, path: str) -> tuple[Address, bytes]:
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
    }
    if replica.api_key is not None:
        if not replica.api_key.isprintable() or not replica.api_key.isascii():
            raise UpstreamFailed("The key for this model holds what no header can.", code="upstream_credentials")
        headers["authorization"] = f"Bearer {replica.api_key}"
    return request_to("POST", replica.base_url.rstrip("/") + path, headers, replica.socket)


async def refusal(answer: Answer) -> GalerneError:
    """The typed error for an answer that is not 200; reads at most 64 KiB of it, and closes it."""
    raw = await _read_refusal(answer)
    status = answer.status
    if status in (400, 413, 422):
        return _perhaps_options(_fields(raw))
    if status == 429:
        return RateLimited("The engine of this model has too much to do.", retry_after_s=_retry_after(answer.headers))
    if status == 503:
        return Unavailable("The engine of this model is not ready.", retry_after_s=_retry_after(answer.headers))
    if status in (401, 403):
        return UpstreamFailed("The engine refused this gateway's own credentials.", code="upstream_credentials")
    if status == 404:
        return UpstreamFailed("The engine does not serve this model.", code="upstream_lacks_model")
    return UpstreamFailed(f"The engine answered with status {status}.")


async def _read_refusal(answer: Answer) -> bytes:
    raw = b""
    try:
        with suppress(Lost):
            while len(raw) < _LONGEST_REFUSAL and (part := await answer.read()):
                raw += part
    finally:
        answer.close()
    return raw[:_LONGEST_REFUSAL]


def engine_error(error: Mapping[str, Any] | str) -> GalerneError:
    """The typed error for what an engine reports in the middle of a stream.

    Its text is passed on only if the engine calls it the request's fault: it may hold another machine's traces.
    """
    fields: Mapping[str, Any] = {} if isinstance(error, str) else error
    status = fields.get("status", fields.get("code"))
    if status in (400, 413, 422) or fields.get("type") == "invalid_request_error":
        return _refused_request(fields)
    if status == 503:
        return Unavailable("The engine of this model is not ready.", retry_after_s=1)
    return UpstreamFailed("The engine failed in the middle of its answer.")


def _refused_request(fields: Mapping[str, Any]) -> BadRequest:
    """Passed on with the engine's own words, for it is the caller who can do something about it."""
    given = fields.get("message", fields.get("detail", ""))
    message = (given if isinstance(given, str) else msgspec.json.encode(given).decode())[:_LONGEST_MESSAGE]
    code, param = fields.get("code"), fields.get("param")
    return BadRequest(
        message or "The engine refused this request.",
        code=code if isinstance(code, str) and _CODE.fullmatch(code) else None,
        param=param[:256] if isinstance(param, str) else None,
    )


def _perhaps_options(fields: Mapping[str, Any]) -> BadRequest:
    refused = _refused_request(fields)
    # Where an engine names the field, its words are not searched, for they may quote what the caller wrote.
    where = _places(fields) or refused.message
    if any(name in where for name in _OPTION_NAMES):
        return OptionsRefused(refused, continuous="continuous_usage" in where)
    return refused


def _places(fields: Mapping[str, Any]) -> str:
    """What an engine says is at fault, as `param` or as pydantic's `loc`; empty if it says nothing of it."""
    listed = [fields, *_objects(fields.get("detail")), *_objects(fields.get("message"))]
    given = [one.get(name) for one in listed for name in ("param", "loc")]
    parts = [part for place in given for part in (cast(list[Any], place) if isinstance(place, list) else [place])]
    return ".".join(part for part in parts if isinstance(part, str))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    return [cast(dict[str, Any], one) for one in cast(list[Any], value) if isinstance(one, dict)]


def _fields(raw: bytes) -> Mapping[str, Any]:
    try:
        body: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    fields = cast(dict[str, Any], body)
    error = fields.get("error", fields)
    if isinstance(error, str):
        return {"message": error}
    return cast(dict[str, Any], error) if isinstance(error, dict) else {}


def _retry_after(headers: Mapping[bytes, bytes]) -> float:
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, b"")) * unit_s
        except ValueError:
            continue
        if 0 <= wait_s <= 3600:
            return wait_s
    return 1.0
