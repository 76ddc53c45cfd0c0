"""What a small language model can honestly be measured by: held-out loss, minimal pairs, last words."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import MistralForCausalLM

from galerne.kernel.errors import invariant
from galerne.training.corpora import read_records
from galerne.training.network import read_apart
from galerne.training.recipe import Evaluation, Measured
from galerne.training.tokens import BOS, EOS

__all__ = ["HeldOut", "evaluate", "held_out_loss", "last_word_accuracy", "minimal_pair_accuracy"]

_HELD_OUT_CONTEXT = 512
_TOKENS_AT_ONCE = 8_192


class HeldOut(NamedTuple):
    """The loss on text not trained on: `nats` per token, and `bits` per UTF-8 byte, which compares vocabularies."""

    nats: float
    bits: float


class _Judged(NamedTuple):
    losses: torch.Tensor
    greedy: torch.Tensor


def evaluate(plan: Evaluation, corpora: Path, model: MistralForCausalLM, tokenizer: Tokenizer) -> dict[str, float]:
    """Everything that the plan names, as figures by name; takes minutes on a CPU."""
    scores: dict[str, float] = {}
    for entry in plan.held_out:
        loss = held_out_loss(model, tokenizer, [record["text"] for record in read_records(corpora, entry)])
        name = Path(entry.path).stem
        scores |= {f"{name}, nats per token": loss.nats, f"{name}, bits per byte": loss.bits}
    if plan.minimal_pairs is not None:
        pairs = [(record["good"], record["bad"]) for record in read_records(corpora, plan.minimal_pairs)]
        scores["BLiMP accuracy"] = minimal_pair_accuracy(model, tokenizer, pairs)
    if plan.last_word is not None:
        scores["last-word accuracy"] = last_word_accuracy(model, tokenizer, _passages(corpora, plan.last_word))
    return scores


def held_out_loss(model: MistralForCausalLM, tokenizer: Tokenizer, texts: list[str]) -> HeldOut:
    """The mean loss over `texts`, read in stretches of at most 512 tokens, none of which sees another."""
    pieces: list[list[int]] = []
    for text in texts:
        ids = _ids(tokenizer, BOS + text + EOS)
        pieces.extend(ids[at : at + _HELD_OUT_CONTEXT + 1] for at in range(0, len(ids) - 1, _HELD_OUT_CONTEXT))
    losses = [judged.losses for judged in _judge(model, pieces)]
    total, count = sum(float(loss.sum()) for loss in losses), sum(len(loss) for loss in losses)
    return HeldOut(total / count, total / math.log(2) / sum(len(text.encode()) for text in texts))


def minimal_pair_accuracy(model: MistralForCausalLM, tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> float:
    """The share of (good, bad) sentence pairs whose good one is likelier as a whole (BLiMP; Warstadt et al., 2020)."""
    pieces = [_ids(tokenizer, BOS + sentence) for pair in pairs for sentence in pair]
    sums = [float(judged.losses.sum()) for judged in _judge(model, pieces)]
    return sum(good < bad for good, bad in zip(sums[::2], sums[1::2], strict=True)) / len(pairs)


def last_word_accuracy(model: MistralForCausalLM, tokenizer: Tokenizer, passages: list[tuple[str, str]]) -> float:
    """The share of (context, last word) passages whose last word is exactly the greedy continuation (after LAMBADA)."""
    pieces: list[list[int]] = []
    wanted: list[int] = []
    for context, word in passages:
        ending = _ids(tokenizer, " " + word)
        pieces.append(_ids(tokenizer, BOS + context) + ending)
        wanted.append(len(ending))
    judged = list(_judge(model, pieces))
    return sum(bool(one.greedy[-count:].all()) for one, count in zip(judged, wanted, strict=True)) / len(passages)


def _passages(corpora: Path, entry: Measured) -> list[tuple[str, str]]:
    return [(record["context"].rstrip(), record["target"]) for record in read_records(corpora, entry)]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@torch.inference_mode()
def _judge(model: MistralForCausalLM, pieces: list[list[int]]) -> Iterator[_Judged]:
    model.eval()
    for group in _groups(pieces):
        ids = torch.tensor([[number for piece in group for number in piece]], device=model.device)
        lengths = [len(piece) for piece in group]
        hidden = read_apart(model, ids, lengths)[0]
        logits = model.lm_head(hidden[:-1]).float()
        losses = nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").cpu()
        greedy = (logits.argmax(-1) == ids[0, 1:]).cpu()
        end = 0
        for length in lengths:
            begin, end = end, end + length
            yield _Judged(losses[begin : end - 1], greedy[begin : end - 1])


def _groups(pieces: list[list[int]]) -> Iterator[list[list[int]]]:
    group: list[list[int]] = []
    size = 0
    for piece in pieces:
        invariant(len(piece) > 1, "a piece to judge has no token that something is predicted from")
        if group and size + len(piece) > _TOKENS_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece)
    if group:
        yield group
