"""Knows what a GGUF file says about its model: sizes, chat template, and which tokens are control tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gguf import GGUFReader, TokenType

from galerne.engines.failures import UnusableModel

# (prefix, middle, suffix) as models spell them; the prompt is laid out in each one's trained order.
_FILL_MARKS = (
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>"),
    ("<|fim_begin|>", "<|fim_end|>", "<|fim_hole|>"),
)

_SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "penalty_repeat"}


@dataclass(frozen=True)
class ModelFile:
    """What the engine needs to know of a model before it runs.

    `context_length` is in tokens; `parameters` counts weights; `control` maps the text of each control token to its id;
    `template` is the model's own chat template (Jinja), if it has one; `bos` and `eos` are texts; `sampling` holds the
    sampling fields for which the model brings defaults, named as in requests.
    """

    path: Path
    architecture: str
    context_length: int
    parameters: int
    template: str | None
    bos: str
    eos: str
    bos_id: int | None
    control: dict[str, int]
    sampling: dict[str, float]

    @property
    def embeds(self) -> bool:
        """Whether this is an encoder, which embeds text and cannot generate."""
        return self.architecture == "bert"

    @property
    def tool_call_token(self) -> int | None:
        """The token that opens a list of tool calls, or None for models without one."""
        return self.control.get("[TOOL_CALLS]")

    def fill_in_the_middle(self, prefix: list[int], suffix: list[int]) -> list[int] | None:
        """The prompt that asks for what goes between `prefix` and `suffix`, or None if the model was not taught to."""
        start = [] if self.bos_id is None else [self.bos_id]
        if "[SUFFIX]" in self.control and "[PREFIX]" in self.control:
            return [*start, self.control["[SUFFIX]"], *suffix, self.control["[PREFIX]"], *prefix]
        for before, middle, after in _FILL_MARKS:
            if {before, middle, after} <= self.control.keys():
                return [self.control[before], *prefix, self.control[after], *suffix, self.control[middle]]
        return None


def read_model_file(path: Path) -> ModelFile:
    """What the GGUF file at `path` says; raises `UnusableModel` when it is not one or is cut off."""
    try:
        reader = GGUFReader(path)
        return _described(path, reader)
    except (ValueError, KeyError, IndexError, OSError, TypeError) as error:
        raise UnusableModel(f"{path} is not a usable GGUF file: {error}") from error


def _described(path: Path, reader: GGUFReader) -> ModelFile:
    architecture = str(_field(reader, "general.architecture"))
    tokens = cast("list[str]", _field(reader, "tokenizer.ggml.tokens") or [])
    kinds = cast("list[int]", _field(reader, "tokenizer.ggml.token_type") or [])
    bos, eos = (_field(reader, f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos"))
    return ModelFile(
        path=path,
        architecture=architecture,
        context_length=int(_field(reader, f"{architecture}.context_length") or 0),
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        template=_field(reader, "tokenizer.chat_template"),
        bos="" if bos is None else tokens[int(bos)],
        eos="" if eos is None else tokens[int(eos)],
        bos_id=None if bos is None else int(bos),
        control={
            token: index
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == TokenType.CONTROL
        },
        sampling=_sampling(reader),
    )


def _sampling(reader: GGUFReader) -> dict[str, float]:
    declared = {name: _field(reader, f"general.sampling.{key}") for name, key in _SAMPLING.items()}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in declared.items() if value}


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()
