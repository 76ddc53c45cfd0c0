"""Knows what a request asks of the sampler: from the fields that callers send to the fields that llama.cpp reads."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from galerne.engines.llamacpp.model_file import ModelFile
from galerne.engines.llamacpp.requests import Generation
from galerne.kernel.errors import BadRequest

_SEEDS = 2**32 - 1  # the highest value means "any" to llama.cpp
_MOST_STOPS = 16


@dataclass(frozen=True)
class Plan:
    """One generation: prompt, limits and sampling; `grammar` is empty for free text.

    Only plans of one `salt` share what the native server has read; the one without is shared among all who send none.
    `top_logprobs` is None without log-probabilities, else how many alternatives to list with each token.
    `early_usage` asks for the number of cached tokens before the first token.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    min_tokens: int
    sampling: dict[str, Any]
    grammar: str
    top_logprobs: int | None
    early_usage: bool
    salt: str = ""

    def body(self, *, generated: tuple[int, ...] = (), limit: int, ignore_eos: bool) -> dict[str, Any]:
        """The body for llama.cpp's `/completion`, but for its slot, going on after the tokens `generated`."""
        body: dict[str, Any] = {
            **self.sampling,
            "prompt": [*self.prompt, *generated],
            "n_predict": limit,
            "stream": True,
            "lora": [],
            "return_progress": self.early_usage,
        }
        if self.top_logprobs is not None:
            body["n_probs"] = max(1, self.top_logprobs)
        if self.grammar:
            body["grammar"] = self.grammar
        if ignore_eos:
            body["ignore_eos"] = True
        return body


@dataclass(frozen=True)
class Constraint:
    """What the text must be: of `grammar` unless that is empty, and never with the token `banned`."""

    grammar: str = ""
    banned: int | None = None


def plans(
    request: Generation, prompt: list[int], model: ModelFile, context: int, constraint: Constraint, top: int | None
) -> list[Plan]:
    """How to answer `request` for `prompt` in `context` tokens: a plan for each choice, each with its own seed.

    Raises `BadRequest`, with code `context_length_exceeded` when the prompt leaves no room for a token.
    """
    room = context - len(prompt)
    if room < 1:
        raise BadRequest(
            f"the prompt has {len(prompt)} tokens; this model reads {context}, so at most {context - 1} fit",
            param="messages" if hasattr(request, "messages") else "prompt",
            code="context_length_exceeded",
        )
    asked = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    limit = room if asked is None else min(asked, room)
    minimum = min(request.min_tokens or 0, limit)
    if minimum and constraint.grammar:
        raise BadRequest("min_tokens cannot be combined with tools or a response format", param="min_tokens")
    sampling = _sampling(with_defaults(request, model), constraint.banned)
    sampling["repeat_last_n"] = context
    first = Plan(
        prompt=tuple(prompt),
        max_tokens=limit,
        min_tokens=0 if request.ignore_eos else minimum,
        sampling=sampling,
        grammar=constraint.grammar,
        top_logprobs=top,
        early_usage=bool(request.stream_options and request.stream_options.continuous_usage_stats),
        salt=request.cache_salt or "",
    )
    return [
        first if choice == 0 or request.seed is None else replace(first, sampling=_reseeded(sampling, choice))
        for choice in range(request.n or 1)
    ]


def with_defaults(request: Generation, model: ModelFile) -> Generation:
    """`request` with the model's own sampling defaults (its generation_config.json) where it says nothing."""
    missing = {name: value for name, value in model.sampling.items() if getattr(request, name) is None}
    return msgspec.structs.replace(request, **missing) if missing else request


def _reseeded(sampling: dict[str, Any], choice: int) -> dict[str, Any]:
    return {**sampling, "seed": (sampling["seed"] + choice) % _SEEDS}


def _sampling(request: Generation, banned: int | None) -> dict[str, Any]:
    temperature = 1.0 if request.temperature is None else request.temperature
    values: dict[str, Any] = {
        "temperature": temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "top_k": max(request.top_k or 0, 0),
        "min_p": request.min_p or 0.0,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "repeat_penalty": 1.0 if request.repetition_penalty is None else request.repetition_penalty,
        "ignore_eos": request.ignore_eos,
        "stop": _stops(request.stop),
        "logit_bias": _bias(request.logit_bias, banned),
        "samplers": _samplers(request, temperature),
    }
    if request.seed is not None:
        values["seed"] = request.seed % _SEEDS
    return values


def _samplers(request: Generation, temperature: float) -> list[str]:
    # Only those that do something: each one walks over the whole vocabulary for every token.
    penalties = request.presence_penalty or request.frequency_penalty or (request.repetition_penalty or 1.0) != 1.0
    chain = ["penalties"] if penalties else []
    chain.append("temperature")
    if temperature > 0:
        chain += ["top_k"] if (request.top_k or 0) > 0 else []
        chain += ["top_p"] if request.top_p is not None and request.top_p < 1.0 else []
        chain += ["min_p"] if request.min_p else []
    return chain


def _stops(stop: str | list[str] | None) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > _MOST_STOPS:
        raise BadRequest(f"at most {_MOST_STOPS} stop strings are allowed, {len(stops)} were given", param="stop")
    return [text for text in stops if text]


def _bias(bias: dict[str, float] | None, banned: int | None) -> list[list[int | float | bool]]:
    listed: list[list[int | float | bool]] = []
    for token, value in (bias or {}).items():
        if not token.isdecimal():
            raise BadRequest(f"logit_bias names {token!r}, which is not a token id", param="logit_bias")
        listed.append([int(token), False if value <= -100 else value])
    if banned is not None:
        listed.append([banned, False])
    return listed
