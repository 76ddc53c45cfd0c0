"""The parts without I/O: limits, routing, event splitting, assembly, counting, embeddings, errors, cards,
documentation.
"""

import json
from array import array
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.gateway import error_body, error_headers, error_status, model_card, openapi_schema
from galerne.gateway.admission import reserved_tokens
from galerne.gateway.embeddings import quantised, shortened
from galerne.gateway.exchange import context_reached
from galerne.gateway.schemas import SchemaChecker
from galerne.gateway.sse import EventSplitter
from galerne.gateway.tally import Tally
from galerne.gateway.wire.answer import TokenCount, nine_characters
from galerne.gateway.wire.assemble import Assembler
from galerne.gateway.wire.chunks import Chunk, Delta, StreamChoice, Usage, UsageDetails, decode_chunk
from galerne.gateway.wire.errors import InvalidFields
from galerne.gateway.wire.requests import BODIES, decode_object, invalid_field, parse
from galerne.gateway.wire.shapes import CompletionBody
from galerne.kernel import BadRequest, GalerneError, NotFound, RateLimited, Unauthenticated, UpstreamFailed
from tests.gateway.installation import model

SECONDS = st.floats(0, 1_000, allow_nan=False)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), max_size=8), st.data())
def test_events_are_the_same_however_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    payloads = [json.dumps(text).encode() for text in texts]
    raw = b": comment\n\n" + b"".join(b"data: " + payload + b"\r\n\r\n" for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    splitter, found = EventSplitter(), []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += splitter.feed(raw[start:end])
    assert found + splitter.end() == payloads


def test_a_line_without_end_is_refused() -> None:
    splitter = EventSplitter()
    with pytest.raises(UpstreamFailed):
        for _ in range(20):
            splitter.feed(b"x" * 1024 * 1024)


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=20))
def test_assembling_gives_each_choice_its_text_in_order(parts: list[tuple[int, str]]) -> None:
    assembler = Assembler("0" * 32)
    for index, text in parts:
        assembler.add(Chunk(choices=[StreamChoice(index=index, delta=Delta(content=text))]))
    for choice in assembler.choices():
        assert choice.content == "".join(text for index, text in parts if index == choice.index)


@given(st.text(max_size=12), st.integers(0, 3), st.integers(0, 3))
def test_tool_call_ids_are_nine_characters_and_stay_the_same(given_id: str, choice: int, call: int) -> None:
    made = nine_characters(given_id, "0" * 32, choice, call)
    assert len(made) == 9
    assert made.isascii()
    assert made.isalnum()
    assert made == nine_characters(given_id, "0" * 32, choice, call) == nine_characters(made, "f" * 32, 9, 9)


COUNTS = st.one_of(
    st.none(), st.integers(-5, 1_000_000), st.sampled_from([2**24, 2**24 + 1, 2**32 - 1, 2**62, 2**63, 10**30])
)


@given(COUNTS, COUNTS, COUNTS)
def test_token_classes_are_disjoint_and_never_negative_whatever_an_engine_says(
    prompt: int | None, completion: int | None, cached: int | None
) -> None:
    tally = Tally(prompt_bytes=10, started_s=0.0)
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=UsageDetails(cached))
    tally.see(Chunk(usage=usage), 1.0)
    count = tally.count()
    assert min(count.input_tokens, count.cached_tokens, count.output_tokens) >= 0
    believed = [number is not None and 0 <= number <= 2**24 for number in (prompt, completion)]
    assert count.input_tokens + count.cached_tokens == (prompt if believed[0] else 3)
    assert count.output_tokens == (completion if believed[1] else 0)
    assert count.estimated is not all(believed)
    assert count.usage("openai", "default")["total_tokens"] == count.total


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("stop", "stop"),
        ("tool_calls", "tool_calls"),
        ("st\0op", "other"),
        ("x" * 41, "other"),
        ("", None),
        (None, None),
    ],
)
def test_a_finish_reason_is_a_name_or_other(written: str | None, read: str | None) -> None:
    raw = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": written}]}).encode()
    assert decode_chunk(raw).choices[0].finish_reason == read


@pytest.mark.parametrize("queue_ms", [10**400, -1, "1", None, True])
def test_a_queue_time_that_is_none_is_nothing(queue_ms: object) -> None:
    tally = Tally(prompt_bytes=10, started_s=0.0)
    tally.see(Chunk(timings={"queue_ms": queue_ms}), 1.0)
    assert tally.queue_ms in (0.0, 1.0)


def test_what_was_not_sent_is_not_counted_as_sent() -> None:
    tally = Tally(prompt_bytes=10, started_s=0.0)
    for number in range(1, 4):
        usage = Usage(prompt_tokens=5, completion_tokens=number)
        tally.see(Chunk(choices=[StreamChoice(delta=Delta(content="x"))], usage=usage), float(number))
        if number == 1:
            tally.mark_sent()
    assert tally.sent() == TokenCount(5, 0, 1)
    assert tally.count() == TokenCount(5, 0, 3)
    assert tally.ttft_ms == 1_000


def test_a_running_count_of_one_of_several_answers_does_not_stand_for_all_of_them() -> None:
    tally = Tally(prompt_bytes=10, started_s=0.0)
    for number in range(1, 4):
        for index in range(4):
            choice = StreamChoice(index=index, delta=Delta(content="x"))
            tally.see(Chunk(choices=[choice], usage=Usage(prompt_tokens=5, completion_tokens=number)), float(number))
    tally.mark_sent()
    assert tally.sent() == TokenCount(5, 0, 12), "who hangs up before the last count pays for all that came"
    tally.see(Chunk(usage=Usage(prompt_tokens=5, completion_tokens=13)), 9.0)
    assert tally.count() == TokenCount(5, 0, 13)


@pytest.mark.parametrize(("best_of", "n", "answers"), [(None, None, 50), (2, None, 100), (2, 3, 150)])
def test_every_answer_to_every_prompt_is_reserved_for(best_of: int | None, n: int | None, answers: int) -> None:
    body = CompletionBody(model="m", prompt=["a"] * 50, max_tokens=100, best_of=best_of, n=n)
    assert reserved_tokens(body, 50, model("m")) == 17 + 100 * answers


@pytest.mark.parametrize(
    ("reason", "cap", "choices", "reached"),
    [
        ("length", None, 1, True),
        ("length", 5, 1, True),
        ("length", 2, 1, False),
        ("stop", None, 1, False),
        ("length", None, 2, False),
    ],
)
def test_model_length_is_told_from_the_callers_cap(
    reason: str, cap: int | None, choices: int, *, reached: bool
) -> None:
    tally = Tally(prompt_bytes=10, started_s=0.0)
    tally.see(Chunk([StreamChoice(finish_reason=reason)], Usage(prompt_tokens=5, completion_tokens=2)), 1.0)
    assert context_reached(tally, cap, choices) is reached


@given(st.lists(st.floats(-1, 1, allow_nan=False, width=32), min_size=8, max_size=64).filter(any), st.integers(1, 64))
def test_embeddings_keep_their_size_sign_and_length(values: list[float], size: int) -> None:
    given = array("f", values)
    vector = np.asarray(given)
    short = shortened(given, size)
    assert len(short) == min(size, len(values))
    if size < len(values) and np.linalg.norm(vector[:size]) > 1e-6:
        assert np.linalg.norm(short) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.asarray(quantised(given, "int8")) / 127 - vector).max() <= 1 / 127
    assert np.abs(np.asarray(quantised(given, "uint8")) / 127.5 - 1 - vector).max() <= 1 / 127
    bits = np.unpackbits(np.asarray(quantised(given, "ubinary")))[: len(values)]
    assert (bits == (vector > 0)).all()
    assert [number + 128 for number in quantised(given, "binary")] == quantised(given, "ubinary").tolist()


@given(st.lists(st.floats(-2, 2, width=32) | st.sampled_from([0.5 / 127, 1.5 / 127, -2.5 / 127, 3e38]), min_size=1))
def test_numbers_of_8_bits_are_those_that_numpy_makes(values: list[float]) -> None:
    vector = np.asarray(values, dtype=np.float32)
    with np.errstate(over="ignore"):
        signed = np.clip(np.rint(vector * 127), -128, 127).astype(np.int8)
        unsigned = np.clip(np.rint((vector + 1) * 127.5), 0, 255).astype(np.uint8)
    assert quantised(array("f", values), "int8").tolist() == signed.tolist()
    assert quantised(array("f", values), "uint8").tolist() == unsigned.tolist()
    assert quantised(array("f", values), "ubinary").tobytes() == np.packbits(vector > 0).tobytes()


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=64), st.integers(1, 2))
def test_a_shortened_embedding_is_divided_by_its_length_as_floats_of_32_bits_are(
    values: list[float], size: int
) -> None:
    cut = np.asarray(values[:size], dtype=np.float32)
    length = np.float32(np.linalg.norm(cut.astype(np.float64)))
    assert shortened(array("f", values), size).tobytes() == (cut / length if length > 0 else cut).tobytes()


async def test_a_schema_is_checked_once_and_named_when_it_is_none() -> None:
    checker = SchemaChecker(capacity=2)
    await checker.check(
        [("tools[0].function.parameters", {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}})]
    )
    with pytest.raises(BadRequest) as wrong:
        await checker.check([("tools[1].function.parameters", {"properties": {"a": {"type": "wrong"}}})])
    assert wrong.value.param == "tools[1].function.parameters"
    assert "properties.a.type" in wrong.value.message
    with pytest.raises(BadRequest):
        await checker.check([("x", {"description": "x" * 200_000})])
    nested: dict[str, Any] = {}
    for _ in range(900):
        nested = {"not": nested}
    with pytest.raises(BadRequest):
        await checker.check([("x", nested)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({name for shape in BODIES.values() for name in shape.__struct_encode_fields__})


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6), st.sampled_from(list(BODIES.values())))
def test_whatever_a_body_holds_it_parses_or_is_a_bad_request(fields: dict[str, Any], shape: Any) -> None:
    raw = msgspec.json.encode(fields)
    # Any other kind of exception fails the test.
    with suppress(InvalidFields, BadRequest):
        parse(decode_object(raw), shape)


@given(st.binary(max_size=64))
def test_whatever_bytes_come_they_are_an_object_or_a_400(raw: bytes) -> None:
    with suppress(BadRequest):
        assert isinstance(decode_object(raw), dict)


def test_integral_floats_are_integers() -> None:
    body = parse(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 100.0}, BODIES["chat.completions"]
    )
    assert body.body.max_tokens == 100  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("error", "openai", "mistral", "code"),
    [
        (invalid_field("max_tokens", "no"), 400, 422, "invalid_value"),
        (BadRequest("no"), 400, 400, "invalid_request"),
        (Unauthenticated("no"), 401, 401, "invalid_api_key"),
        (NotFound("no", code="model_not_found"), 404, 404, "1500"),
        (RateLimited("no"), 429, 429, "1300"),
        (UpstreamFailed("no"), 502, 502, "upstream_failed"),
    ],
)
def test_errors_have_the_shape_of_both_dialects(error: GalerneError, openai: int, mistral: int, code: str) -> None:
    assert (error_status(error, "openai"), error_status(error, "mistral")) == (openai, mistral)
    body = json.loads(error_body(error, "mistral"))
    assert (body["code"], body["raw_status_code"], body["object"]) == (code, mistral, "error")
    assert set(body["error"]) == {"message", "type", "param", "code"}
    retriable = dict(error_headers(error, "openai"))[b"x-should-retry"] == b"true"
    assert retriable is (openai in (429, 502))


def test_a_pause_is_told_in_seconds_and_milliseconds() -> None:
    headers = dict(error_headers(RateLimited("no", retry_after_s=1.25), "openai"))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"2", b"1250")


def test_a_card_holds_what_both_clients_read() -> None:
    card = model_card(model("brise-1", aliases=("brise",), created_at=datetime(2026, 11, 1, tzinfo=UTC)), "brise")
    assert (card["id"], card["object"], card["name"], card["aliases"]) == ("brise", "model", "brise-1", ["brise-1"])
    assert card["max_context_length"] == 4096
    assert card["capabilities"]["completion_chat"] is True
    assert card["capabilities"]["vision"] is False
    assert "max_context_length" not in model_card(model("x", context_length=None))


def test_the_documentation_names_every_field_that_is_read() -> None:
    document = openapi_schema()
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/fim/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{name}",
    }
    chat = document["components"]["schemas"]["ChatBody"]
    assert set(chat["properties"]) == set(BODIES["chat.completions"].__struct_encode_fields__)
    assert chat["properties"]["temperature"]["anyOf"][0]["maximum"] == 2
    references = set(msgspec.json.encode(document).decode().split('"$ref":"#/components/schemas/')[1:])
    assert {found.split('"')[0] for found in references} <= set(document["components"]["schemas"])
