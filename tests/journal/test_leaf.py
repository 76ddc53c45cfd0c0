"""The journal's bytes: the encoding is fixed for ever, and what cannot be written is refused when it is made."""

import hashlib
import json
from datetime import datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given

from galerne.governance import Actor, ActorKind
from galerne.journal import GENESIS, Entry
from galerne.journal.leaf import decode, encode, extend
from galerne.journal.merkle import hash_leaf
from galerne.kernel import BadRequest
from tests.journal.entries import NOON, Someone, entries, entry


def test_a_version_1_leaf_is_these_bytes_for_ever() -> None:
    assert encode(entry(7), 3) == (
        b'{"action":"api_key.create",'
        b'"actor":{"id":"key-1","kind":"api_key","organisation_id":"org-1","workspace_id":null},'
        b'"detail":{"number":7},"log":"galerne","outcome":"done","request_id":"00000000000000000000000000000007",'
        b'"resource":"api_key/7","seq":3,"ts":"2026-11-23T12:00:07.000000Z","v":1}'
    )


@given(entries)
def test_a_leaf_is_canonical_json_as_another_implementation_of_rfc_8785_writes_it(some: Entry) -> None:
    leaf = encode(some, 9)
    assert leaf == rfc8785.dumps(json.loads(leaf))


def test_hashes_are_those_of_rfc_9162_chained_from_a_stated_genesis() -> None:
    # RFC 9162 section 2.1.1; the empty leaf's hash is the well-known one of the transparency logs' test vectors.
    assert hash_leaf(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert hashlib.sha256(b"galerne journal v1").digest() == GENESIS
    assert extend(GENESIS, b"\x01" * 32) == hashlib.sha256(GENESIS + b"\x01" * 32).digest()


def test_times_are_written_in_utc_whatever_zone_they_came_in() -> None:
    paris = Entry(
        action="a", actor=Someone(), resource="r", outcome="done", at=NOON.astimezone(timezone(timedelta(hours=1)))
    )
    assert decode(encode(paris, 1))["ts"] == "2026-11-23T12:00:00.000000Z"


def test_governances_actor_is_an_actor_here() -> None:
    actor = Actor(ActorKind.USER, "ada", "org", "space")
    one = Entry(action="a", actor=actor, resource="r", outcome="refused", at=NOON)
    assert decode(encode(one, 1))["actor"] == {
        "kind": "user",
        "id": "ada",
        "organisation_id": "org",
        "workspace_id": "space",
    }


@given(entries)
def test_a_leaf_says_all_that_the_entry_said_and_only_one_way(one: Entry) -> None:
    fields = decode(encode(one, 1))
    assert fields["detail"] == dict(one.detail)
    assert (fields["action"], fields["resource"], fields["request_id"]) == (one.action, one.resource, one.request_id)
    assert datetime.fromisoformat(fields["ts"]) == one.at
    # RFC 8785 for the values that an entry may hold is JSON without blanks; only the order of exotic keys differs.
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert sorted(encode(one, 1)) == sorted(plain)


@pytest.mark.parametrize("bad", ["nul \x00", "half a pair \ud800"])
def test_text_that_some_database_would_refuse_is_refused_before_it_joins_a_batch(bad: str) -> None:
    for change in ({"resource": bad}, {"detail": {"model": bad}}, {"detail": {bad: 1}}, {"actor": Someone(id=bad)}):
        fields = {"action": "a", "actor": Someone(), "resource": "r", "outcome": "done", "at": NOON} | change
        with pytest.raises(BadRequest):
            Entry(**fields)  # type: ignore[arg-type] # the table of refusals mixes types on purpose


def test_a_number_beyond_rfc_8785_and_a_time_without_zone_are_refused() -> None:
    with pytest.raises(BadRequest):
        Entry(action="a", actor=Someone(), resource="r", outcome="done", at=NOON, detail={"n": 2**53})
    with pytest.raises(ValueError, match="zone"):
        Entry(action="a", actor=Someone(), resource="r", outcome="done", at=NOON.replace(tzinfo=None))
