"""Knows how to answer POST /v1/completions, fill-in-the-middle included."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from galerne.engines.llamacpp.chat import answer_rule
from galerne.engines.llamacpp.generation import Piece, run_all
from galerne.engines.llamacpp.grammars import grammar
from galerne.engines.llamacpp.native import Probability
from galerne.engines.llamacpp.plans import Constraint, Plan, plans
from galerne.engines.llamacpp.replies import DONE, Reply, Tally, TextChoice, Usage, encode, event, text_logprobs
from galerne.engines.llamacpp.requests import CompletionRequest, token_lists
from galerne.engines.llamacpp.runtime import Runtime
from galerne.engines.llamacpp.schema_cost import SchemaBudget
from galerne.kernel.errors import BadRequest

_MOST_PROMPTS = 256


@dataclass(frozen=True)
class PreparedCompletion:
    """A checked request: one plan for each prompt and choice, and the text to begin each answer with."""

    request: CompletionRequest
    plans: list[Plan]
    echoes: list[str]
    prompt_tokens: int


async def prepare_completion(runtime: Runtime, request: CompletionRequest) -> PreparedCompletion:
    """Checks `request` and tokenises its prompts; raises `BadRequest` naming the field at fault.

    The texts of control tokens in a prompt stand for them here, as in every raw completions endpoint; in a `suffix`
    request, which is code between code, they do not.
    """
    _check(request)
    form = request.response_format
    rule = await asyncio.to_thread(answer_rule, form, SchemaBudget()) if form else ""
    source = grammar(rule) if rule else ""
    if source:
        await runtime.check_grammar(source, "response_format.json_schema.schema")
    given = token_lists(request.prompt, "prompt")
    if len(given) > _MOST_PROMPTS:
        raise BadRequest(f"at most {_MOST_PROMPTS} prompts are allowed, {len(given)} were given", param="prompt")
    prompts = [await _tokens(runtime, request, prompt) for prompt in given]
    constraint = Constraint(source)
    listed = [
        planned
        for prompt in prompts
        for planned in plans(request, prompt, runtime.model, runtime.context, constraint, request.logprobs)
    ]
    echoes = [""] * len(listed)
    if request.echo:
        texts = [text if isinstance(text, str) else await runtime.client.detokenize(text) for text in given]
        echoes = [text for text in texts for _ in range(request.n or 1)]
    return PreparedCompletion(request, listed, echoes, sum(map(len, prompts)))


async def stream_completion(runtime: Runtime, prepared: PreparedCompletion) -> AsyncGenerator[bytes]:
    """The answer as server-sent events; each yielded piece holds those of all tokens that had come."""
    request, told = prepared.request, _Telling(runtime, prepared)
    options = request.stream_options
    every = bool(options and options.continuous_usage_stats)
    last = bool(options and options.include_usage)
    async with aclosing(run_all(runtime.generator, prepared.plans)) as batches:
        async for index, pieces in batches:
            written: list[bytes] = []
            for piece in pieces:
                told.tally.add(index, piece)
                choice = told.chunk(index, piece)
                if choice is None:
                    continue
                reply = told.reply([choice])
                if every:
                    reply.usage = told.usage()
                elif last:
                    reply.usage = None
                if told.complete and not last:
                    reply.timings = told.tally.durations
                written.append(event(reply))
            yield b"".join(written)
    if last:
        reply = told.reply([])
        reply.usage, reply.timings = told.usage(), told.tally.durations
        yield event(reply)
    yield DONE


async def whole_completion(runtime: Runtime, prepared: PreparedCompletion) -> bytes:
    """The answer as one JSON object."""
    told = _Telling(runtime, prepared)
    texts = [list[str]() for _ in prepared.plans]
    probabilities = [list[Probability]() for _ in prepared.plans]
    reasons: list[str | None] = [None] * len(prepared.plans)
    async with aclosing(run_all(runtime.generator, prepared.plans)) as batches:
        async for index, pieces in batches:
            for piece in pieces:
                told.tally.add(index, piece)
                texts[index].append(piece.text)
                probabilities[index] += piece.probabilities
                reasons[index] = piece.finish or reasons[index]
    choices = [
        TextChoice(index, echo + "".join(texts[index]), told.logprobs(index, probabilities[index]), reasons[index])
        for index, echo in enumerate(prepared.echoes)
    ]
    reply = told.reply(choices)
    reply.usage, reply.timings = told.usage(), told.tally.durations
    return encode(reply)


class _Telling:
    def __init__(self, runtime: Runtime, prepared: PreparedCompletion) -> None:
        self._prepared = prepared
        self._head = (runtime.new_id("cmpl"), runtime.created(), prepared.request.model or runtime.name)
        self._offsets = [len(echo) for echo in prepared.echoes]
        self._begun = [not echo for echo in prepared.echoes]
        self._open = set(range(len(prepared.plans)))
        self.tally = Tally(prepared.prompt_tokens, len(prepared.plans))

    @property
    def complete(self) -> bool:
        return not self._open

    def reply(self, choices: list[TextChoice]) -> Reply:
        identity, created, model = self._head
        return Reply(id=identity, object="text_completion", created=created, model=model, choices=choices)

    def usage(self) -> Usage:
        return self.tally.usage(cached_per_prompt=self._prepared.request.n or 1)

    def chunk(self, index: int, piece: Piece) -> TextChoice | None:
        text = piece.text
        if not self._begun[index]:
            text = self._prepared.echoes[index] + text
            self._begun[index] = True
        if piece.finish is not None:
            self._open.discard(index)
        elif not text and not piece.probabilities:
            return None
        return TextChoice(index, text, self.logprobs(index, piece.probabilities), piece.finish)

    def logprobs(self, index: int, probabilities: list[Probability]) -> dict[str, object] | None:
        top = self._prepared.request.logprobs
        if top is None:
            return None
        offset = self._offsets[index]
        self._offsets[index] += sum(len(entry.token) for entry in probabilities)
        return text_logprobs(probabilities, top, offset)


def _check(request: CompletionRequest) -> None:
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise BadRequest("best_of is not supported beyond n", param="best_of", code="unsupported_parameter")
    if request.echo and request.logprobs is not None:
        raise BadRequest(
            "echo with logprobs is not supported: this engine scores only what it generates",
            param="logprobs",
            code="unsupported_parameter",
        )
    if request.suffix is not None and not isinstance(request.prompt, str):
        raise BadRequest("with suffix, prompt must be one text", param="prompt")


async def _tokens(runtime: Runtime, request: CompletionRequest, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, list):
        return prompt
    if request.suffix is None:
        return await runtime.client.tokenize(prompt, control=True, add_special=True)
    before = await runtime.client.tokenize(prompt, control=False)
    after = await runtime.client.tokenize(request.suffix, control=False)
    laid_out = runtime.model.fill_in_the_middle(before, after)
    if laid_out is None:
        raise BadRequest("this model was not trained to fill in the middle", param="suffix", code="unsupported_suffix")
    return laid_out
