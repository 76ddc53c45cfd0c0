"""Knows how a Hugging Face `tokenizer.json` becomes the vocabulary of a GGUF file: byte-level BPE and WordPiece."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gguf import TokenType

from galerne.engines.failures import UnusableModel

_WORD_START = "\u2581"  # llama.cpp marks the beginning of a word where WordPiece marks the continuation

# llama.cpp implements pre-tokenizers by name; a pattern that it does not know would tokenise wrongly without a sign.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS = {_LLAMA_3: "llama-bpe", _TEKKEN: "tekken"}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as GGUF stores it.

    `model` and `pre` are llama.cpp's names; `tokens[i]` is the text of token `i` and `kinds[i]` its `gguf.TokenType`;
    `special` maps the roles bos, eos, unk, pad, cls, sep and mask to ids.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: dict[str, int]
    add_bos: bool


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The vocabulary in `folder`, padded with unused tokens to `size`, the rows of the model's embedding matrix.

    Raises `UnusableModel` for tokenizers that llama.cpp would not reproduce exactly.
    """
    tokenizer, config = read_json(folder / "tokenizer.json"), _read_optional(folder / "tokenizer_config.json")
    model = cast("dict[str, Any]", tokenizer.get("model") or {})
    kind = str(model.get("type", ""))
    if kind == "BPE":
        pre, vocabulary_model, merges = _pre_tokenizer(tokenizer), "gpt2", _merges(model)
    elif kind == "WordPiece":
        _check_word_piece(tokenizer)
        pre, vocabulary_model, merges = "default", "bert", ()
    else:
        raise UnusableModel(f"{folder}: a tokenizer of type {kind!r}; byte-level BPE and WordPiece are supported")
    tokens, kinds = _tokens(tokenizer, size, word_piece=kind == "WordPiece")
    special = _special_ids(config, _ids_by_text(tokenizer))
    return Vocabulary(vocabulary_model, pre, tokens, kinds, merges, special, _adds_bos(tokenizer, config, special))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; raises `UnusableModel` when it is missing or is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableModel(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UnusableModel(f"{path} is not a JSON object")
    return cast("dict[str, Any]", content)


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _pre_tokenizer(tokenizer: dict[str, Any]) -> str:
    declared = cast("dict[str, Any]", tokenizer.get("pre_tokenizer") or {})
    steps = cast("list[dict[str, Any]]", declared.get("pretokenizers") or [declared])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space", False):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        pattern = str(cast("dict[str, Any]", steps[0].get("pattern") or {}).get("Regex", ""))
        if pattern in _PRE_TOKENIZERS:
            return _PRE_TOKENIZERS[pattern]
        raise UnusableModel(f"the tokenizer splits text by a pattern that this engine does not know: {pattern!r}")
    raise UnusableModel(f"the tokenizer's pre-tokenizer steps {kinds} are not supported")


def _merges(model: dict[str, Any]) -> tuple[str, ...]:
    listed = cast("list[str | list[str]]", model.get("merges") or [])
    return tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in listed)


def _check_word_piece(tokenizer: dict[str, Any]) -> None:
    normalizer = cast("dict[str, Any]", tokenizer.get("normalizer") or {})
    if normalizer.get("type") != "BertNormalizer" or not normalizer.get("lowercase", False):
        raise UnusableModel("only the uncased BERT WordPiece tokenizer is supported")


def _ids_by_text(tokenizer: dict[str, Any]) -> dict[str, int]:
    model = cast("dict[str, Any]", tokenizer["model"])
    ids = {str(text): int(index) for text, index in cast("dict[str, int]", model.get("vocab") or {}).items()}
    ids.update({str(added["content"]): int(added["id"]) for added in _added(tokenizer)})
    return ids


def _added(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", tokenizer.get("added_tokens") or [])


def _tokens(tokenizer: dict[str, Any], size: int, *, word_piece: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    by_text = _ids_by_text(tokenizer)
    if by_text and max(by_text.values()) >= size:
        raise UnusableModel(f"the tokenizer has ids up to {max(by_text.values())}, the model's embedding {size} rows")
    tokens = [f"[PAD{index}]" for index in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    for text, index in by_text.items():
        tokens[index], kinds[index] = _word_piece(text) if word_piece else text, int(TokenType.NORMAL)
    for added in _added(tokenizer):
        index, special = int(added["id"]), bool(added.get("special"))
        tokens[index] = str(added["content"])
        kinds[index] = int(TokenType.CONTROL if special else TokenType.USER_DEFINED)
    return tuple(tokens), tuple(kinds)


def _word_piece(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return text
    return text.removeprefix("##") if text.startswith("##") else _WORD_START + text


def _special_ids(config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for role in ("bos", "eos", "unk", "pad", "cls", "sep", "mask"):
        declared: Any = config.get(f"{role}_token")
        text = cast("dict[str, Any]", declared).get("content") if isinstance(declared, dict) else declared
        if isinstance(text, str) and text in ids:
            found[role] = ids[text]
    return found


def _adds_bos(tokenizer: dict[str, Any], config: dict[str, Any], special: dict[str, int]) -> bool:
    if "bos" not in special:
        return False
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"])
    return '"single"' in (text := json.dumps(tokenizer.get("post_processor") or {})) and '"SpecialToken"' in text
