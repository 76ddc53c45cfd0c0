"""The tokenizer: which special tokens exist, how it splits text, how it is learnt. Knows no corpus and no model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from galerne.kernel.errors import BadRequest

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "SPECIAL_TOKENS",
    "load_tokenizer",
    "special_tokens_map",
    "token_id",
    "tokenizer_settings",
    "train_tokenizer",
]

PAD = "<pad>"
BOS = "<s>"
EOS = "</s>"
SPECIAL_TOKENS = (
    PAD,
    BOS,
    EOS,
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
)
"""Every special token; its place here is its id."""

# The split of Llama 3, which llama.cpp knows as the pre-tokenizer "llama-bpe": a converter to GGUF has to name it only.
_SPLIT = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn a byte-level BPE of exactly `vocabulary` entries, special tokens included.

    Raises `BadRequest` when the text is too little for so many entries.
    """
    # ignore_merges: a whole word in the vocabulary is taken as it is, which is what llama.cpp does for "llama-bpe".
    tokenizer = Tokenizer(BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(_SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise BadRequest(
            f"The text gives only {tokenizer.get_vocab_size()} tokens, the recipe asks for {vocabulary}; "
            "raise tokenizer.sample_bytes or lower tokenizer.vocabulary.",
            param="tokenizer.vocabulary",
        )
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, token_id(BOS))])
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`."""
    return Tokenizer.from_file(str(path))


def token_id(special: str) -> int:
    """The id of a special token."""
    return SPECIAL_TOKENS.index(special)


def tokenizer_settings(context: int) -> dict[str, Any]:
    """What goes into `tokenizer_config.json` for a model of `context` tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "added_tokens_decoder": {
            str(number): {"content": name, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                          "single_word": False}
            for number, name in enumerate(SPECIAL_TOKENS)
        },
    }  # fmt: skip


def special_tokens_map() -> str:
    """The text of `special_tokens_map.json`."""
    return json.dumps({"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}, indent=2) + "\n"
