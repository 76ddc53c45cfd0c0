from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from galerne.gateway.affinity import affinity_key
from galerne.gateway.routing import OVERLOADED_TIMES, OVERLOADED_TOKENS, Load, Refusal, Replica, Wanted, choose_replica

A, B, C = (Replica(id=name, base_url="http://x/v1", zone="eu") for name in "abc")
HERE, THERE = replace(A, zone="fr"), replace(B, zone="us")

replicas = st.lists(
    st.builds(
        Replica,
        id=st.uuids().map(str),
        base_url=st.just("http://x/v1"),
        ready=st.booleans(),
        zone=st.sampled_from(["eu", "us", ""]),
        most_parallel=st.none() | st.integers(1, 4),
        serves=st.none() | st.frozensets(st.sampled_from(["base", "legal"])),
    ),
    max_size=6,
    unique_by=lambda replica: replica.id,
)
wishes = st.builds(
    Wanted,
    zones=st.none() | st.sets(st.sampled_from(["eu", "us"])),
    adapter=st.none() | st.just("legal"),
    affinity=st.none() | st.binary(min_size=16, max_size=16),
    tokens=st.integers(0, 100_000),
    seed=st.integers(0, 2**32),
)


def conversation(number: int) -> bytes:
    key = affinity_key("org", "model", str(number), {})
    assert key is not None
    return key


@pytest.mark.parametrize(
    ("among", "loads", "wanted", "expected"),
    [
        ([], {}, Wanted(), Refusal.NONE_READY),
        ([A], {}, Wanted(), A),
        ([replace(A, ready=False)], {}, Wanted(), Refusal.NONE_READY),
        ([replace(A, ready=False), B], {}, Wanted(), B),
        ([A, B], {"a": Load(1, 10)}, Wanted(), B),
        ([A, B], {"a": Load(9, 10), "b": Load(1, 11)}, Wanted(), A),
        ([A], {}, Wanted(avoid=["a"]), Refusal.NONE_READY),
        ([A, B], {}, Wanted(avoid=["a"]), B),
        ([HERE], {}, Wanted(zones={"us"}), Refusal.NONE_IN_ZONE),
        ([HERE, THERE], {"b": Load(9, 9)}, Wanted(zones={"us"}), THERE),
        ([HERE, THERE], {}, Wanted(zones={"eu"}), Refusal.NONE_IN_ZONE),
        ([HERE, THERE], {}, Wanted(zones=set()), Refusal.NONE_IN_ZONE),
        ([HERE, replace(THERE, ready=False)], {}, Wanted(zones={"us"}), Refusal.NONE_READY),
        ([replace(A, most_parallel=2)], {"a": Load(1, 10**9)}, Wanted(), replace(A, most_parallel=2)),
        ([replace(A, most_parallel=2)], {"a": Load(2, 0)}, Wanted(), Refusal.ALL_FULL),
        ([replace(A, most_parallel=2), B], {"a": Load(2, 0), "b": Load(9, 9)}, Wanted(), B),
        ([replace(A, serves=frozenset({"base"}))], {}, Wanted(adapter="legal"), Refusal.NONE_HOLDS_ADAPTER),
        ([replace(A, serves=frozenset({"base"})), B], {"b": Load(9, 9)}, Wanted(adapter="legal"), B),
    ],
)
def test_a_replica_or_the_reason_why_there_is_none(
    among: list[Replica], loads: dict[str, Load], wanted: Wanted, expected: Replica | Refusal
) -> None:
    assert choose_replica(among, loads, wanted) == expected


def test_an_adapter_goes_to_a_replica_known_to_hold_it_before_one_that_may() -> None:
    holding = replace(A, serves=frozenset({"base", "legal"}))
    assert choose_replica([holding, B], {"a": Load(9, 10**6)}, Wanted(adapter="legal")) == holding
    assert choose_replica([holding, B], {"a": Load(9, 10**6)}, Wanted()) == B


def test_a_replica_that_is_ejected_gets_nothing() -> None:
    assert choose_replica([A, B], {"b": Load(9, 9)}, Wanted(), {"a"}) == B
    assert choose_replica([A], {}, Wanted(), {"a"}) == Refusal.NONE_READY


def test_ties_are_spread_by_the_seed() -> None:
    assert {choose_replica([A, B, C], {}, Wanted(seed=seed)) for seed in range(3)} == {A, B, C}


@given(replicas, st.data(), wishes)
@example([], None, Wanted())
def test_no_request_reaches_a_replica_that_is_elsewhere_unready_full_tried_or_without_its_adapter(
    among: list[Replica], drawn: Any, wanted: Wanted
) -> None:
    ids = [replica.id for replica in among]
    loads = {each: Load(drawn.draw(st.integers(0, 5)), drawn.draw(st.integers(0, 10**6))) for each in ids}
    ejected = drawn.draw(st.sets(st.sampled_from(ids))) if ids else set[str]()
    tried = drawn.draw(st.sets(st.sampled_from(ids))) if ids else set[str]()
    wanted = Wanted(
        zones=wanted.zones,
        adapter=wanted.adapter,
        affinity=wanted.affinity,
        tokens=wanted.tokens,
        avoid=tried,
        seed=wanted.seed,
    )
    near = [each for each in among if wanted.zones is None or each.zone in wanted.zones]
    ready = [each for each in near if each.ready and each.id not in ejected | tried]
    holding = [each for each in ready if not wanted.adapter or each.serves is None or wanted.adapter in each.serves]
    free = [each for each in holding if each.most_parallel is None or loads[each.id].requests < each.most_parallel]
    chosen = choose_replica(among, loads, wanted, ejected)
    if isinstance(chosen, Refusal):
        # Known holders that are full are waited for; one that may not hold it does not stand in for them.
        known = [each for each in holding if wanted.adapter and each.serves is not None]
        assert not [each for each in free if not known or each in known]
        assert (chosen is Refusal.NONE_IN_ZONE) == (bool(among) and not near)
        assert (chosen is Refusal.ALL_FULL) == bool(holding)
    else:
        assert chosen in free


@given(wishes, replicas)
def test_every_gateway_comes_to_the_same_choice_whatever_the_order(wanted: Wanted, among: list[Replica]) -> None:
    loads = {replica.id: Load(0, number) for number, replica in enumerate(among)}
    assert choose_replica(among, loads, wanted) == choose_replica(among[::-1], loads, wanted)


def homes(among: list[Replica], conversations: int) -> list[str]:
    found = [choose_replica(among, {}, Wanted(affinity=conversation(n), seed=n)) for n in range(conversations)]
    return [each.id for each in found if isinstance(each, Replica)]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_one_replica_more_moves_only_its_share_of_conversations_and_only_to_itself(count: int) -> None:
    among = [Replica(id=f"replica-{number}", base_url="http://x/v1") for number in range(count + 1)]
    before, after = homes(among[:-1], 4_000), homes(among, 4_000)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {among[-1].id}
    assert len(moved) == pytest.approx(4_000 / (count + 1), rel=0.15)
    assert min(Counter(after).values()) > 0.8 * 4_000 / (count + 1)


def test_a_conversation_stays_until_its_replica_is_overloaded_and_comes_back_afterwards() -> None:
    wanted = Wanted(affinity=conversation(1), tokens=500)
    home = choose_replica([A, B, C], {}, wanted)
    assert isinstance(home, Replica)
    most = OVERLOADED_TIMES * 1_000 + OVERLOADED_TOKENS + wanted.tokens
    others = {each.id: Load(1, 1_000) for each in (A, B, C)}
    assert choose_replica([A, B, C], {**others, home.id: Load(1, most)}, wanted) == home
    elsewhere = choose_replica([A, B, C], {**others, home.id: Load(1, most + 1)}, wanted)
    assert elsewhere != home
    assert choose_replica([A, B, C], others, wanted) == home


def test_a_conversation_whose_replica_is_gone_finds_the_same_other_one_each_time() -> None:
    wanted = [Wanted(affinity=conversation(1), seed=seed) for seed in range(10)]
    home = choose_replica([A, B, C], {}, wanted[0])
    assert isinstance(home, Replica)
    assert len({choose_replica([A, B, C], {}, each, {home.id}) for each in wanted}) == 1


SYSTEM = {"role": "system", "content": "You are terse."}
HELLO = {"role": "user", "content": "Hello"}
PHOTO = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "data:abc"}}, {"type": "text", "text": "?"}],
}


def key(*messages: Any, organisation: str = "org", model: str = "model", explicit: str | None = None) -> bytes | None:
    return affinity_key(organisation, model, explicit, {"messages": list(messages)})


@pytest.mark.parametrize("first", [HELLO, PHOTO, {"role": "user", "content": "x" * 100_000}])
def test_turns_of_one_conversation_agree(first: dict[str, Any]) -> None:
    later = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "How are you?"}]
    assert key(SYSTEM, first) == key(SYSTEM, first, *later)


@pytest.mark.parametrize(
    "other",
    [
        key(SYSTEM, {"role": "user", "content": "Bye"}),
        key(HELLO),
        key(SYSTEM, PHOTO),
        key(SYSTEM, HELLO, organisation="other"),
        key(SYSTEM, HELLO, model="other"),
        key(SYSTEM, HELLO, explicit="mine"),
        key(SYSTEM, {"role": "user", "content": None}),
        affinity_key("org", "model", None, {"prompt": "Hello"}),
        affinity_key("org", "model", None, {"input": "Hello"}),
    ],
)
def test_other_conversations_organisations_and_models_differ(other: bytes | None) -> None:
    assert key(SYSTEM, HELLO) != other


def test_long_texts_differ_by_either_end_and_by_length() -> None:
    texts = ["a" * 5_000, "a" * 5_001, "b" + "a" * 4_999, "a" * 4_999 + "b"]
    assert len({key({"role": "user", "content": text}) for text in texts}) == 4


def test_what_the_caller_names_counts_alone() -> None:
    assert key(HELLO, explicit="mine") == key(PHOTO, explicit="mine")
    assert key(HELLO, explicit="mine") != key(HELLO, explicit="mine", organisation="other")


@pytest.mark.parametrize(
    ("prompt", "same", "other"),
    [
        ("a" * 256 + "b", "a" * 256 + "c", "b" * 256),
        (["one", "two"], ["one"], ["two"]),
        ([1, 2, 3], [[1, 2, 3], [4]], [1, 2, 4]),
    ],
)
def test_a_prompt_is_known_by_its_first_256_bytes(prompt: Any, same: Any, other: Any) -> None:
    found = affinity_key("org", "model", None, {"prompt": prompt})
    assert found == affinity_key("org", "model", None, {"prompt": same})
    assert found != affinity_key("org", "model", None, {"prompt": other})


def test_an_embedding_belongs_to_no_conversation() -> None:
    assert affinity_key("org", "model", None, {"input": "text"}) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "url", "x"]), inner),
    max_leaves=8,
)


@given(json_values, json_values)
def test_no_content_breaks_it(content: Any, prompt: Any) -> None:
    assert len(key({"role": "user", "content": content}) or b"") == 16
    affinity_key("org", "model", None, {"prompt": prompt})
