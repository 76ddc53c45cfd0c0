"""From samples to windows to the rows that a step sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.kernel import BadRequest
from galerne.training import SPECIAL_TOKENS
from galerne.training.tokens import token_id, train_tokenizer
from galerne.training.windows import cut_stream, encode, fit_whole, place, windows_of_step

TEXTS = ["The boat left the harbour at night, and the wind was 12 knots.", "An old dog saw the sea."] * 20


def _sample(length: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(first, first + length, dtype=np.uint16), np.ones(length, np.bool_)


def test_a_stream_is_cut_so_that_every_token_but_the_first_is_a_target_once() -> None:
    windows = cut_stream(iter([_sample(25, 100), _sample(16, 200)]), 10)
    assert windows.ids.shape == (4, 11)
    assert (windows.ids[1:, 0] == windows.ids[:-1, -1]).all()
    with pytest.raises(BadRequest, match="fewer than one window"):
        cut_stream(iter([_sample(5, 0)]), 10)


def test_whole_samples_share_a_window_and_never_learn_from_their_neighbour() -> None:
    windows = fit_whole([_sample(6, 100), _sample(9, 200), _sample(4, 300), _sample(30, 400)], 10)
    assert windows.ids.shape == (3, 11)
    assert windows.ids[0].tolist() == [*range(100, 106), *range(300, 304), token_id("<pad>")]
    assert windows.starts[0].nonzero()[0].tolist() == [0, 6, 10]
    assert windows.learnt[0].tolist() == [False, *[True] * 5, False, *[True] * 3, False]
    assert windows.ids[2].tolist() == list(range(400, 411))


@given(st.lists(st.integers(1, 50), max_size=200))
def test_every_sample_is_placed_once_and_no_window_overflows(lengths: list[int]) -> None:
    placed = place(lengths, 50)
    assert sorted(number for window in placed for number in window) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in window) <= 50 for window in placed)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 5))
def test_every_window_is_seen_once_an_epoch(total: int, per_step: int, seed: int) -> None:
    steps = range(total)
    rows = np.concatenate([windows_of_step(step, per_step=per_step, total=total, seed=seed) for step in steps])
    for epoch in range(per_step):
        assert sorted(rows[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))


def test_special_tokens_are_single_and_have_their_place_as_id() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    for number, name in enumerate(SPECIAL_TOKENS):
        assert tokenizer.encode(name, add_special_tokens=False).ids == [number]
    assert tokenizer.encode("boat").ids[0] == token_id("<s>")


@given(st.text(max_size=80))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    ids = _TOKENIZER.encode(text, add_special_tokens=False).ids
    assert _TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(BadRequest, match="vocabulary"):
        train_tokenizer(["a b"], 4096)


def test_stretches_keep_their_marks() -> None:
    ((ids, learnt),) = encode([[("[INST]boat[/INST]", False), ("sea</s>", True)]], _TOKENIZER, learn_all=False)
    assert len(ids) == len(learnt)
    assert not learnt[0]
    assert learnt[-1]
    ((_, everything),) = encode([[("boat", False)]], _TOKENIZER, learn_all=True)
    assert everything.all()


_TOKENIZER = train_tokenizer(TEXTS, 300)
