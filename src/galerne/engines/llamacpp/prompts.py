"""Knows how messages become a prompt: the model's own chat template, safe from control tokens in user text."""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, cast

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from galerne.engines.failures import UnusableModel
from galerne.engines.llamacpp.model_file import ModelFile
from galerne.kernel.clock import Clock
from galerne.kernel.errors import BadRequest

# Private-use characters (Unicode 16.0, section 23.5) around a random name: nothing that a user could have written.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt; in the template's own pieces (`control`) the texts of control tokens stand for them."""

    text: str
    control: bool


class ChatTemplate:
    """A model's chat template, ready to render."""

    def __init__(self, model: ModelFile, clock: Clock) -> None:
        self._model = model
        self._control = re.compile("|".join(map(re.escape, sorted(model.control, key=len, reverse=True))) or r"(?!)")
        self._template = _compiled(model.template, clock) if model.template else None

    def render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, *, continues: bool = False
    ) -> list[Segment]:
        """The prompt for `messages` in pieces, in order.

        With `continues` the last message stays open for the model to go on writing it. Where a message, a tool or a
        name contains the text of a control token, that text comes as a piece of its own that must be tokenised as plain
        text. Raises `BadRequest` when the template refuses the conversation.
        """
        if self._template is None:
            raise BadRequest("this model has no chat template; use /v1/completions", param="model", code="no_template")
        seal = _Seal(self._control)
        end = seal.name()
        sealed = cast("list[dict[str, Any]]", seal.apply(messages))
        if continues:
            sealed[-1] = {**sealed[-1], "content": f"{sealed[-1].get('content') or ''}{end}"}
        try:
            text = self._template.render(
                messages=sealed,
                tools=seal.apply(tools) if tools else None,
                add_generation_prompt=not continues,
                bos_token=self._model.bos,
                eos_token=self._model.eos,
            )
        except TemplateError as error:
            raise BadRequest(f"the model's chat template refuses these messages: {error}", param="messages") from error
        except TypeError as error:
            raise BadRequest("the model's chat template cannot show these messages", param="messages") from error
        return list(seal.segments(text.partition(end)[0] if continues else text))


class _Seal:
    def __init__(self, control: re.Pattern[str]) -> None:
        self._control = control
        self._nonce = secrets.token_hex(8)
        self._plain: dict[str, str] = {}

    def name(self) -> str:
        return f"{_OPEN}{self._nonce}{len(self._plain)}e{_CLOSE}"

    def apply(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._control.sub(self._hide, value)
        if isinstance(value, list):
            return [self.apply(item) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            return {self.apply(key): self.apply(item) for key, item in cast("dict[Any, Any]", value).items()}
        return value

    def segments(self, text: str) -> Iterator[Segment]:
        pieces = re.split(f"({_OPEN}{self._nonce}[0-9]+{_CLOSE})", text) if self._plain else [text]
        for piece in pieces:
            if piece:
                yield Segment(self._plain[piece], control=False) if piece in self._plain else Segment(piece, True)

    def _hide(self, match: re.Match[str]) -> str:
        placeholder = f"{_OPEN}{self._nonce}{len(self._plain)}{_CLOSE}"
        self._plain[placeholder] = match[0]
        return placeholder


def _compiled(source: str, clock: Clock) -> Template:
    # Settings, filter and functions are those that Hugging Face's chat templates are written against.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    functions = cast("dict[str, Any]", environment.globals)
    functions["raise_exception"] = _refuse
    functions["strftime_now"] = partial(_written_now, clock)
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise UnusableModel(f"the model's chat template is not valid Jinja: {error}") from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _written_now(clock: Clock, pattern: str) -> str:
    return clock.now().strftime(pattern)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
