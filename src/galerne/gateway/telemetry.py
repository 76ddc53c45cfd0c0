"""The seam to OpenTelemetry: what is known of a request once it has ended, and who is told of it, if anybody is.

Knows nothing of OpenTelemetry's packages, which are an extra: `galerne.gateway.otlp` does, and is imported only when
OpenTelemetry's own environment variables name a collector.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol
from urllib.parse import urlsplit

from galerne.gateway.wire.answer import TokenCount
from galerne.gateway.wire.requests import Body
from galerne.gateway.wire.shapes import ChatBody
from galerne.kernel import get_logger

__all__ = ["Content", "Finished", "Telemetry", "TelemetryOff", "content_of", "open_telemetry"]

_ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_"))
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Content:
    """What was asked and answered, as text: (role, text) of each message, and the text of each choice.

    Given only for a workspace that has opted in to its being traced.
    """

    asked: Sequence[tuple[str, str]]
    answered: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One request that has ended, however it ended.

    `model` is a catalogue's id and `provider` the kind of engine that runs it, both None when no model was found;
    `status` is what was answered, or 499 for a client that left; `error_code` is a `GalerneError`'s. `traceparent` is
    the caller's header, as it came. `content` is None unless the workspace has opted in.
    """

    request_id: str
    organisation_id: str | None
    workspace_id: str | None
    key_id: str | None
    model: str | None
    model_version: str | None
    provider: str | None
    endpoint: str
    dialect: str
    tier: str | None
    status: int
    error_code: str | None
    count: TokenCount
    started_at: datetime
    queue_ms: float
    ttft_ms: float | None
    total_ms: float
    finish_reason: str | None
    streamed: bool
    traceparent: str | None = None
    content: Content | None = field(default=None, repr=False)


class Telemetry(Protocol):
    """Whoever wants to know of requests that have ended; told after the answer has been sent."""

    @property
    def on(self) -> bool:
        """Whether anybody listens: without it there is no need to make a `Finished`."""
        ...

    def finished(self, one: Finished) -> None:
        """Take note of a request that has ended; never blocks, and never raises for what it was told."""
        ...

    async def close(self, within_s: float = 2.0) -> None:
        """Send what is still to be sent, if that takes no longer than `within_s`, and drop the rest."""
        ...


class TelemetryOff:
    """Nobody listens."""

    on = False

    def finished(self, one: Finished) -> None:
        """Nothing."""

    async def close(self, within_s: float = 2.0) -> None:
        """Nothing."""


def open_telemetry(*, offline: bool = False) -> Telemetry:
    """What OpenTelemetry's environment variables ask for; nobody listens unless they name a collector.

    One line of log says so when they do and yet nothing is sent: the extra is missing, the protocol is another than
    OTLP over HTTP, or the installation is `offline` and the collector another machine.
    """
    given = os.environ  # noqa: TID251 - these variables are OpenTelemetry's, whose packages read them there too
    named = [given[name] for name in _ENDPOINTS if given.get(name, "").strip()]
    if not named or given.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return TelemetryOff()
    problem = _problem(named, given, offline=offline)
    if problem is not None:
        get_logger("telemetry").warning("telemetry_off", problem=problem)
        return TelemetryOff()
    telemetry: Telemetry = import_module("galerne.gateway.otlp").OtlpTelemetry(given)
    return telemetry


def content_of(body: Body, answered: Sequence[str]) -> Content:
    """The text of a request and its answers; images, tool calls and token ids are left out."""
    if isinstance(body, ChatBody):
        return Content([(message.role, _text(message.content)) for message in body.messages], answered)
    prompt = getattr(body, "prompt", getattr(body, "input", ""))
    texts = [prompt] if isinstance(prompt, str) else [item for item in prompt if isinstance(item, str)]
    return Content([("user", text) for text in texts], answered)


def _text(content: str | list[dict[str, object]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(text for chunk in content if isinstance(text := chunk.get("text"), str))


def _problem(named: Sequence[str], given: Mapping[str, str], *, offline: bool) -> str | None:
    if offline and any(urlsplit(address).hostname not in _LOOPBACK for address in named):
        return "GALERNE_OFFLINE allows no collector on another machine."
    if given.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        return "Only OTLP over HTTP is spoken here: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or leave it out."
    try:
        installed = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk.trace")
    except ModuleNotFoundError:
        installed = None
    return None if installed else "OpenTelemetry is not installed: pip install 'galerne[otel]'"
