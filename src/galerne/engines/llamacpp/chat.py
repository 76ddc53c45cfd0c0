"""Knows how to answer POST /v1/chat/completions."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from galerne.engines.llamacpp.generation import Piece, run_all
from galerne.engines.llamacpp.grammars import (
    any_object_rule,
    calls_rules,
    check_schema,
    check_tool_name,
    grammar,
    json_rule,
)
from galerne.engines.llamacpp.native import Probability
from galerne.engines.llamacpp.plans import Constraint, Plan, plans
from galerne.engines.llamacpp.replies import (
    DONE,
    Answer,
    Call,
    CalledFunction,
    ChunkChoice,
    Delta,
    MessageChoice,
    Reply,
    Tally,
    chat_logprobs,
    encode,
    event,
)
from galerne.engines.llamacpp.requests import ChatRequest, Message, NamedTool, ResponseFormat, Tool
from galerne.engines.llamacpp.runtime import Runtime
from galerne.engines.llamacpp.schema_cost import SchemaBudget
from galerne.engines.llamacpp.tool_calls import CallPart, CallReader
from galerne.kernel.errors import BadRequest

_FREE_TEXT = "FREE: /(?s:.)*/"


@dataclass(frozen=True)
class PreparedChat:
    """A checked request: what to run and how to tell it."""

    request: ChatRequest
    plans: list[Plan]
    calls_token: int | None
    top_logprobs: int | None


async def prepare_chat(runtime: Runtime, request: ChatRequest) -> PreparedChat:
    """Checks `request` and tokenises its messages; raises `BadRequest` naming the field at fault."""
    calls_token = runtime.model.tool_call_token
    # Off the event loop: a large schema takes long to check.
    tools, source = await asyncio.to_thread(_constraints, request, calls_token) if _constrained(request) else ({}, "")
    if source:
        await runtime.check_grammar(source, _constrained_field(request, tools))
    prompt = await prompt_tokens(runtime, request.messages, request.tools, continues=_continues(request))
    top = (request.top_logprobs or 0) if request.logprobs else None
    constraint = Constraint(source, None if source else calls_token)
    listed = plans(request, prompt, runtime.model, runtime.context, constraint, top)
    return PreparedChat(request, listed, calls_token if source else None, top)


async def prompt_tokens(
    runtime: Runtime, messages: list[Message], tools: list[Tool] | None, *, continues: bool = False
) -> list[int]:
    """The tokens of `messages` as the model's own chat template lays them out."""
    shown = [_shown(message, index) for index, message in enumerate(messages)]
    listed = [cast("dict[str, Any]", msgspec.to_builtins(_declared(tool))) for tool in tools or []]
    return await runtime.tokens(runtime.template.render(shown, listed or None, continues=continues))


def tool_schemas(tools: list[Tool] | None, budget: SchemaBudget) -> dict[str, dict[str, Any]]:
    """Each tool's name with the schema of its arguments; raises `BadRequest` naming `tools[i]…`.

    Like `check_schema` not for the event loop.
    """
    schemas: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(tools or []):
        name = check_tool_name(tool.function.name, f"tools[{index}].function.name")
        if name in schemas:
            raise BadRequest(f"two tools are called {name!r}", param=f"tools[{index}].function.name")
        param = f"tools[{index}].function.parameters"
        parameters = tool.function.parameters
        schema = dict(check_schema(parameters, param, budget)) if parameters is not None else {}
        if schema.setdefault("type", "object") != "object":
            raise BadRequest(f"{param} must describe an object", param=param, code="invalid_schema")
        schemas[name] = schema
    return schemas


async def stream_chat(runtime: Runtime, prepared: PreparedChat) -> AsyncGenerator[bytes]:
    """The answer as server-sent events; each yielded piece holds those of all tokens that had come."""
    request, teller = prepared.request, _Teller(runtime, prepared)
    options = request.stream_options
    every = bool(options and options.continuous_usage_stats)
    last = bool(options and options.include_usage)
    async with aclosing(run_all(runtime.generator, prepared.plans)) as batches:
        async for index, pieces in batches:
            written: list[bytes] = []
            for piece in pieces:
                teller.tally.add(index, piece)
                for choice in teller.choices[index].chunks(piece):
                    reply = teller.reply("chat.completion.chunk", [choice])
                    if every:
                        reply.usage = teller.usage()
                    elif last:
                        reply.usage = None
                    if choice.finish_reason and not last and teller.finished(index):
                        reply.timings = teller.tally.durations
                    written.append(event(reply))
            yield b"".join(written)
    closing = [DONE]
    if last:
        reply = teller.reply("chat.completion.chunk", list[ChunkChoice]())
        reply.usage, reply.timings = teller.usage(), teller.tally.durations
        closing = [event(reply), DONE]
    yield b"".join(closing)


async def whole_chat(runtime: Runtime, prepared: PreparedChat) -> bytes:
    """The answer as one JSON object."""
    teller = _Teller(runtime, prepared)
    async with aclosing(run_all(runtime.generator, prepared.plans)) as batches:
        async for index, pieces in batches:
            for piece in pieces:
                teller.tally.add(index, piece)
                teller.choices[index].take(piece)
    reply = teller.reply("chat.completion", [choice.whole() for choice in teller.choices])
    reply.usage, reply.timings = teller.usage(), teller.tally.durations
    return encode(reply)


class _Choice:
    """One choice while it is being written."""

    def __init__(self, index: int, calls_token: int | None, top_logprobs: int | None) -> None:
        self._index = index
        self._calls_token = calls_token
        self._top = top_logprobs
        self._reader: CallReader | None = None
        self._begun = False
        self._text: list[str] = []
        self._calls: list[Call] = []
        self._probabilities: list[Probability] = []
        self._finish: str | None = None

    def chunks(self, piece: Piece) -> list[ChunkChoice]:
        deltas: list[Delta] = [] if self._begun else [Delta(role="assistant", content="")]
        self._begun = True
        text, parts = self._read(piece)
        if text:
            deltas.append(Delta(content=text))
        deltas += [Delta(tool_calls=[_call_delta(part)]) for part in parts]
        if piece.probabilities and len(deltas) == 0:
            deltas.append(Delta(content=""))
        choices = [ChunkChoice(self._index, delta) for delta in deltas]
        if piece.probabilities and self._top is not None:
            choices[-1].logprobs = chat_logprobs(piece.probabilities, self._top)
        if piece.finish is not None:
            choices.append(ChunkChoice(self._index, Delta(), None, self._reason(piece)))
        return choices

    def take(self, piece: Piece) -> None:
        text, parts = self._read(piece)
        self._text.append(text)
        self._probabilities += piece.probabilities
        for part in parts:
            if part.id is not None:
                self._calls.append(Call(CalledFunction(part.name, ""), id=part.id, type="function"))
            function = self._calls[-1].function
            function.arguments = (function.arguments or "") + part.arguments
        if piece.finish is not None:
            self._finish = self._reason(piece)

    def whole(self) -> MessageChoice:
        text = "".join(self._text)
        answer = Answer("assistant", None if self._calls and not text else text, self._calls or msgspec.UNSET)
        logprobs = None if self._top is None else chat_logprobs(self._probabilities, self._top)
        return MessageChoice(self._index, answer, logprobs, self._finish)

    def _read(self, piece: Piece) -> tuple[str, list[CallPart]]:
        if self._reader is not None:
            return "", self._reader.read(piece.text)
        if piece.token is not None and piece.token == self._calls_token:
            self._reader = CallReader()
        return piece.text, []

    def _reason(self, piece: Piece) -> str | None:
        return "tool_calls" if piece.finish == "stop" and self._reader is not None else piece.finish


class _Teller:
    def __init__(self, runtime: Runtime, prepared: PreparedChat) -> None:
        count = len(prepared.plans)
        self.choices = [_Choice(index, prepared.calls_token, prepared.top_logprobs) for index in range(count)]
        self.tally = Tally(len(prepared.plans[0].prompt), count)
        self._open = set(range(count))
        self._count = count
        self._head = (runtime.new_id("chatcmpl"), runtime.created(), prepared.request.model or runtime.name)

    def reply(self, kind: str, choices: list[ChunkChoice] | list[MessageChoice]) -> Reply:
        identity, created, model = self._head
        return Reply(id=identity, object=kind, created=created, model=model, choices=choices)

    def usage(self) -> Any:
        return self.tally.usage(cached_per_prompt=self._count)

    def finished(self, index: int) -> bool:
        self._open.discard(index)
        return not self._open


def _call_delta(part: CallPart) -> Call:
    if part.id is None:
        return Call(CalledFunction(arguments=part.arguments), index=part.index)
    return Call(CalledFunction(part.name, part.arguments), index=part.index, id=part.id, type="function")


def _continues(request: ChatRequest) -> bool:
    last = request.messages[-1]
    if (last.prefix or request.continue_final_message) and last.role != "assistant":
        raise BadRequest("only a last message of the assistant can be continued", param="messages")
    return last.prefix or request.continue_final_message


def _shown(message: Message, index: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": _text(message, index),
    }
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    for key in ("name", "tool_call_id"):
        if (value := getattr(message, key)) is not None:
            shown[key] = value
    return shown


def _text(message: Message, index: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    for place, part in enumerate(message.content):
        if part.type != "text" or part.text is None:
            param = f"messages[{index}].content[{place}].type"
            raise BadRequest(
                f"{param}: this model reads text, not {part.type!r}", param=param, code="unsupported_content"
            )
    return "".join(part.text or "" for part in message.content)


def _arguments(arguments: str | dict[str, Any]) -> Any:
    # Templates write arguments with `tojson`, which would quote a text a second time.
    if isinstance(arguments, dict):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _declared(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description is not None:
        function["description"] = tool.function.description
    function["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _constrained_field(request: ChatRequest, tools: dict[str, dict[str, Any]]) -> str:
    form = request.response_format
    if form is not None and form.type == "json_schema":
        return "response_format.json_schema.schema"
    return "tools[0].function.parameters" if len(tools) == 1 else "tools"


def _constrained(request: ChatRequest) -> bool:
    return bool(request.tools or request.response_format or request.tool_choice)


def _constraints(request: ChatRequest, calls_token: int | None) -> tuple[dict[str, dict[str, Any]], str]:
    budget = SchemaBudget()
    tools = tool_schemas(request.tools, budget)
    answer = answer_rule(request.response_format, budget)
    return tools, _grammar(request, tools, calls_token, answer)


def _grammar(request: ChatRequest, tools: dict[str, dict[str, Any]], calls_token: int | None, answer: str) -> str:
    choice = request.tool_choice or "auto"
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in tools:
            raise BadRequest(f"tool_choice names {name!r}, which is not in tools", param="tool_choice.function.name")
        tools = {name: tools[name]}
    elif choice in ("required", "any") and not tools:
        raise BadRequest(f"tool_choice {choice!r} needs tools", param="tool_choice")
    if not tools or choice == "none":
        return grammar(answer) if answer else ""
    if calls_token is None:
        raise BadRequest("this model was not trained to call tools", param="tools", code="unsupported_tools")
    rules = calls_rules(tools, calls_token, parallel=request.parallel_tool_calls is not False)
    if choice != "auto":
        return grammar("calls", rules)
    if answer:
        return grammar("answer | calls", f"{rules}\nanswer: {answer}")
    return grammar("FREE calls?", f"{rules}\n{_FREE_TEXT}")


def answer_rule(form: ResponseFormat | None, budget: SchemaBudget) -> str:
    """The grammar rule for a response format, or nothing for free text; raises `BadRequest` naming the field.

    Like `check_schema` not for the event loop.
    """
    if form is None or form.type == "text":
        return ""
    if form.type == "json_object":
        return any_object_rule()
    param = "response_format.json_schema.schema"
    if form.json_schema is None:
        raise BadRequest(f"{param} is missing", param=param, code="invalid_schema")
    return json_rule(check_schema(form.json_schema.schema, param, budget))
