"""Samples become windows of token ids, and a step number becomes the windows it sees. Knows nothing of models."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from galerne.kernel.errors import BadRequest
from galerne.training.atomic import atomic_path
from galerne.training.corpora import Sample
from galerne.training.recipe import Batch, Recipe
from galerne.training.tokens import PAD, token_id

__all__ = [
    "Windows",
    "cut_stream",
    "encode",
    "fit_whole",
    "make_windows",
    "open_windows",
    "place",
    "store_windows",
    "windows_key",
    "windows_of_step",
]

Ids = npt.NDArray[np.uint16]
Marks = npt.NDArray[np.bool_]

_OPEN_WINDOWS = 64
_CHUNK_SAMPLES = 2_000


@dataclass(frozen=True)
class Windows:
    """`ids`, `learnt`, `starts`, (windows, context + 1): input is all but the last column, target all but the first.

    `starts` marks where a sample begins that must not see what stands before it in its window.
    """

    ids: Ids
    learnt: Marks
    starts: Marks


def make_windows(samples: list[Sample], tokenizer: Tokenizer, batch: Batch) -> Windows:
    """Tokenise and pack. Raises `BadRequest` when the samples do not fill one window."""
    encoded = encode(samples, tokenizer, learn_all=batch.loss == "all")
    if batch.pack == "stream":
        return cut_stream(encoded, batch.context)
    return fit_whole(list(encoded), batch.context)


def encode(samples: list[Sample], tokenizer: Tokenizer, *, learn_all: bool) -> Iterator[tuple[Ids, Marks]]:
    """Each sample's token ids, and which of them are learnt. Stretches are tokenised one by one, as serving does."""
    for start in range(0, len(samples), _CHUNK_SAMPLES):
        chunk = samples[start : start + _CHUNK_SAMPLES]
        texts = [text for sample in chunk for text, _ in sample]
        pieces = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for sample in chunk:
            parts = [np.array(next(pieces).ids, dtype=np.uint16) for _ in sample]
            flags = [np.full(len(part), learn_all or learnt) for part, (_, learnt) in zip(parts, sample, strict=True)]
            yield np.concatenate(parts), np.concatenate(flags)


def cut_stream(encoded: Iterator[tuple[Ids, Marks]], context: int) -> Windows:
    """All samples end to end, cut every `context` tokens; the rest at the end is dropped."""
    pairs = list(encoded)
    ids = np.concatenate([pair[0] for pair in pairs])
    learnt = np.concatenate([pair[1] for pair in pairs])
    count = (len(ids) - 1) // context
    if count < 1:
        raise BadRequest(
            f"The corpora give {len(ids)} tokens, fewer than one window of {context}.", param="batch.context"
        )
    index = np.arange(count)[:, None] * context + np.arange(context + 1)[None, :]
    starts = np.zeros((count, context + 1), np.bool_)
    starts[:, 0] = True
    return Windows(ids[index], learnt[index], starts)


def fit_whole(encoded: list[tuple[Ids, Marks]], context: int) -> Windows:
    """Whole samples in windows, first fit among the windows last opened; longer ones are cut, gaps are padded."""
    capacity = context + 1
    placed = place([min(len(ids), capacity) for ids, _ in encoded], capacity)
    shape = (len(placed), capacity)
    windows = Windows(np.full(shape, token_id(PAD), np.uint16), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_))
    for row, numbers in enumerate(placed):
        column = 0
        for number in numbers:
            ids, learnt = encoded[number]
            end = min(column + len(ids), capacity)
            windows.ids[row, column:end] = ids[: end - column]
            windows.learnt[row, column:end] = learnt[: end - column]
            # The first token has nothing to be predicted from: what stands before it is another sample.
            windows.learnt[row, column] = False
            windows.starts[row, column] = True
            column = end
        if column < capacity:
            windows.starts[row, column] = True
    return windows


def place(lengths: list[int], capacity: int) -> list[list[int]]:
    """Which samples share a window: their numbers, window by window. No length may exceed `capacity`."""
    placed: list[list[int]] = []
    room: list[int] = []
    for number, length in enumerate(lengths):
        recent = range(max(0, len(room) - _OPEN_WINDOWS), len(room))
        slot = next((slot for slot in recent if room[slot] >= length), len(room))
        if slot == len(room):
            placed.append([])
            room.append(capacity)
        placed[slot].append(number)
        room[slot] -= length
    return placed


def windows_of_step(step: int, *, per_step: int, total: int, seed: int) -> npt.NDArray[np.int64]:
    """Which windows optimiser step `step` (from 0) sees: every epoch is a fresh order, drawn from the seed."""
    first = step * per_step
    rows = [(number // total, number % total) for number in range(first, first + per_step)]
    orders = {epoch: np.random.default_rng((seed, epoch)).permutation(total) for epoch in {epoch for epoch, _ in rows}}
    return np.array([orders[epoch][row] for epoch, row in rows], dtype=np.int64)


def windows_key(recipe: Recipe, tokenizer: Tokenizer) -> str:
    """A name for the windows that this recipe and tokenizer give."""
    batch = recipe.batch
    parts = (recipe.corpora, recipe.dialogues, batch.context, batch.pack, batch.loss, recipe.seed)
    return hashlib.sha256(msgspec.json.encode(parts) + tokenizer.to_str().encode()).hexdigest()[:16]


def open_windows(path: Path) -> Windows | None:
    """Windows that `store_windows` wrote, or None where there are none."""
    if not path.is_file():
        return None
    with np.load(path) as stored:
        return Windows(stored["ids"], stored["learnt"], stored["starts"])


def store_windows(path: Path, windows: Windows) -> None:
    """Write windows for the next start of the same run."""
    with atomic_path(path) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, ids=windows.ids, learnt=windows.learnt, starts=windows.starts)
