"""A proof is accepted as it was made, and whatever was changed in it is named."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing.proof import Checked, verify_invoice
from galerne.journal import hash_leaf, root_of
from tests.billing.proof.samples import (
    MONTH,
    SIGNER,
    STRANGER,
    base64_of,
    issued_again,
    leaf_hashes,
    meaning_of,
    sample,
)
from tests.journal.trees import Tree

Fields = dict[str, Any]
KEYS = [SIGNER.verifier]


def checked(content: bytes) -> Checked:
    return verify_invoice(BytesIO(content), KEYS)


def said(fields: Fields) -> list[str]:
    return [each.text for each in checked(json.dumps(fields).encode()).findings.kept]


def test_a_sound_proof_is_accepted_with_what_it_shows() -> None:
    found = checked(sample().file())
    assert [each.text for each in found.findings.kept] == []
    assert found.proved
    assert (found.requests, found.late, found.entries) == (9, 2, 21)
    assert found.signed is not None
    assert found.signed.size == len(sample().journal.leaves)


@pytest.mark.parametrize("indent", [None, 1])
def test_the_same_json_in_another_layout_is_accepted(indent: int | None) -> None:
    assert checked(json.dumps(sample().fields(), indent=indent).encode()).proved


def requests(fields: Fields) -> list[Fields]:
    return fields["requests"]


def draft_line(fields: Fields, number: int = 0) -> Fields:
    return document(fields)["draft"]["lines"][number]


def document(fields: Fields) -> Fields:
    return fields["invoice"]["document"]


def change_an_amount(fields: Fields) -> None:
    requests(fields)[3]["entries"][0]["nano"] += 1


def change_an_amount_on_the_invoice(fields: Fields) -> None:
    document(fields)["line_minor"][0] += 100


def change_a_total(fields: Fields) -> None:
    document(fields)["totals"]["due_minor"] -= 1


def drop_a_request(fields: Fields) -> None:
    del requests(fields)[4]


def repeat_a_request(fields: Fields) -> None:
    requests(fields).insert(3, requests(fields)[3])


def swap_two_requests(fields: Fields) -> None:
    rows = requests(fields)
    rows[3], rows[4] = rows[4], rows[3]


def show_another_customers_leaf(fields: Fields) -> None:
    requests(fields)[3]["leaves"] = [as_json(sample().other)]


def show_another_requests_leaf(fields: Fields) -> None:
    requests(fields)[3]["leaves"] = requests(fields)[4]["leaves"]


def show_an_old_checkpoint(fields: Fields) -> None:
    fields["checkpoint"] = sample().journal.checkpoint(size=12)


def show_a_checkpoint_of_another_tree(fields: Fields) -> None:
    changed = sample().journal.copy()
    changed.leaves[3] = changed.leaves[3].replace(b'"paid_nano":0', b'"paid_nano":1')
    fields["checkpoint"] = changed.checkpoint()


def change_a_price(fields: Fields) -> None:
    draft_line(fields, 6)["price"] = "29"


def change_which_usage_a_line_bills(fields: Fields) -> None:
    fields["lines"][0], fields["lines"][1] = fields["lines"][1], fields["lines"][0]


def change_a_quantity_on_the_invoice(fields: Fields) -> None:
    draft_line(fields)["quantity"] = "1"


def move_a_quantity_to_another_line(fields: Fields) -> None:
    moved = next(row for row in requests(fields) if len(row["entries"]) == 3)["entries"]
    moved[0]["quantity"] += 1
    moved[1]["quantity"] -= 1


def call_a_line_another_price_list_s(fields: Fields) -> None:
    requests(fields)[2]["entries"][0]["line"]["rate_id"] = "r99"


def forge_the_signature(fields: Fields) -> None:
    note = fields["checkpoint"]
    fields["checkpoint"] = note[:-20] + ("A" if note[-20] != "A" else "B") + note[-19:]


def sign_with_another_installations_key(fields: Fields) -> None:
    fields["checkpoint"] = sample().journal.checkpoint(signer=STRANGER)


def change_vat(fields: Fields) -> None:
    for line in document(fields)["draft"]["lines"]:
        line["vat"]["rate"] = "10"


def change_the_tax(fields: Fields) -> None:
    document(fields)["vat"][0]["tax_minor"] += 1


def call_a_late_request_this_months(fields: Fields) -> None:
    requests(fields)[0]["late"] = False


def take_a_request_of_the_next_month(fields: Fields) -> None:
    row = requests(fields)[-1]
    row["event_id"] = f"{int(MONTH.timestamp() * 1000) + 40 * 86_400_000:012x}{row['event_id'][12:]}"


def change_the_tokens_in_a_leaf(fields: Fields) -> None:
    leaf = requests(fields)[2]["leaves"][0]
    leaf["leaf"] = leaf["leaf"].replace('"input_tokens":1234', '"input_tokens":1230')


def bill_more_tokens_than_were_counted(fields: Fields) -> None:
    entry = requests(fields)[2]["entries"][0]
    entry["quantity"] += 1000


def hide_a_correction(fields: Fields) -> None:
    del requests(fields)[7]["leaves"][1]


def number_it_otherwise(fields: Fields) -> None:
    document(fields)["draft"]["number"] = "FR-2026-000008"


def give_it_to_another_customer(fields: Fields) -> None:
    fields["invoice"]["organisation_id"] = "other"


def leave_out_the_journal(fields: Fields) -> None:
    requests(fields)[5]["leaves"] = []


def change_a_proof(fields: Fields) -> None:
    proof = requests(fields)[5]["leaves"][0]["proof"]
    proof[0], proof[1] = proof[1], proof[0]


TAMPERED: dict[Callable[[Fields], None], tuple[str, str]] = {
    change_an_amount: ("price", "request 4"),
    change_an_amount_on_the_invoice: ("line", "line 1"),
    change_a_total: ("total", "due_minor"),
    drop_a_request: ("complete", "requests"),
    repeat_a_request: ("order", "request 5"),
    swap_two_requests: ("order", "request 5"),
    show_another_customers_leaf: ("owner", "request 4"),
    show_another_requests_leaf: ("included", "request 4"),
    show_an_old_checkpoint: ("checkpoint", "issue"),
    show_a_checkpoint_of_another_tree: ("included", "issue"),
    change_a_price: ("price", "request"),
    change_which_usage_a_line_bills: ("price", "line 1"),
    change_a_quantity_on_the_invoice: ("line", "line 1"),
    move_a_quantity_to_another_line: ("tokens", "request"),
    call_a_line_another_price_list_s: ("line", "request 3"),
    forge_the_signature: ("checkpoint", "head"),
    sign_with_another_installations_key: ("checkpoint", "head"),
    change_vat: ("vat", "category"),
    change_the_tax: ("vat", "tax"),
    call_a_late_request_this_months: ("period", "request 1"),
    take_a_request_of_the_next_month: ("period", "request 9"),
    change_the_tokens_in_a_leaf: ("included", "request 3"),
    bill_more_tokens_than_were_counted: ("tokens", "request 3"),
    hide_a_correction: ("tokens", "request 8"),
    number_it_otherwise: ("finalised", "number"),
    give_it_to_another_customer: ("owner", "request 1"),
    leave_out_the_journal: ("complete", "request 6"),
    change_a_proof: ("included", "request 6"),
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda each: each.__name__)
def test_what_was_tampered_with_is_named(tamper: Callable[[Fields], None]) -> None:
    fields = sample().fields()
    tamper(fields)
    rule, where = TAMPERED[tamper]
    found = checked(json.dumps(fields).encode())
    assert not found.proved
    assert any(each.rule == rule and where in each.where for each in found.findings.kept), said(fields)


def test_a_file_that_was_cut_off_is_refused_wherever_it_ends() -> None:
    content = sample().file()
    for end in range(0, len(content) - 1, 97):
        found = checked(content[:end])
        assert not found.proved
        assert found.findings.kept[0].rule in ("format", "complete")
    lines = content.splitlines(keepends=True)
    (cut,) = checked(b"".join(lines[:5])).findings.kept[:1]
    assert (cut.rule, cut.where) == ("complete", "end")
    assert "request 4" in cut.found


def test_what_follows_the_end_is_refused() -> None:
    assert not checked(sample().file() + b"{}").proved


def test_a_name_that_is_given_twice_is_refused() -> None:
    content = sample().file().replace(b'"quantity":1234', b'"quantity":1,"quantity":1234')
    assert [each.rule for each in checked(content).findings.kept][:1] == ["format"]


def test_a_forger_who_makes_everything_fit_lacks_the_signature() -> None:
    # Amount, line, total, root, digest and leaf agree with one another; only the journal's own key is missing.
    fields = sample().fields()
    entry = next(row for row in requests(fields) if len(row["entries"]) == 1)["entries"][0]
    entry["nano"] += 5
    line = next(each for each in fields["lines"] if each and each["line"] == entry["line"])
    line["exact_nano"] += 5
    fields["invoice"]["usage_root"] = root_of(leaf_hashes(requests(fields))).hex()
    leaf = issued_again(fields)
    fields["issued"]["leaf"] = leaf.decode()
    assert {each.split(":")[0] for each in said(fields)} == {"included", "price"}


def test_a_forger_with_a_tree_of_its_own_lacks_the_key() -> None:
    fields = sample().fields()
    document(fields)["draft"]["lines"][-1]["name"] = "Another plan"
    leaf = issued_again(fields)
    forged = sample().journal.copy()
    forged.leaves[fields["issued"]["index"]] = leaf
    fields["issued"]["leaf"] = leaf.decode()
    tree = Tree(map(hash_leaf, forged.leaves))
    for shown in [fields["issued"], *(each for row in requests(fields) for each in row["leaves"])]:
        shown["proof"] = [base64_of(each) for each in tree.inclusion_proof(shown["index"])]
    fields["checkpoint"] = forged.checkpoint()
    assert said(fields) == []  # whoever has the key can sign anything, which a checkpoint kept elsewhere shows
    fields["checkpoint"] = forged.checkpoint(signer=STRANGER)
    assert [each.split(":")[0] for each in said(fields)] == ["checkpoint"]


def as_json(leaf: Any) -> Fields:
    return {"index": leaf.index, "leaf": leaf.leaf, "proof": list(leaf.proof)}


Place = tuple[Any, ...]


def places(value: Any, path: Place = ()) -> list[Place]:
    if not isinstance(value, dict | list):
        return [path]
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]  # of JSON
    return [found for name, each in parts for found in places(each, (*path, name))]


def is_a_name(path: Place) -> bool:
    # Which tier of volume a line is for says nothing that is checked: its price and quantity do.
    return path[0] == "lines" and path[-1] == "tier_index"


PLACES = [path for path in places(sample().fields()) if not is_a_name(path)]


@given(st.sampled_from(PLACES), st.integers(0, 10**6))
def test_no_field_can_be_changed_without_being_found(path: Place, seed: int) -> None:
    fields = sample().fields()
    holder: Any = fields
    for step in path[:-1]:
        holder = holder[step]
    before = holder[path[-1]]
    holder[path[-1]] = other(before, seed)
    assert said(fields) != [], (path, before, holder[path[-1]])


@given(st.integers(0, len(sample().file()) - 2), st.integers(1, 255))
def test_no_byte_can_be_changed_without_being_found_or_meaning_the_same(place: int, change: int) -> None:
    content = bytearray(sample().file())
    content[place] ^= change
    found = checked(bytes(content))
    if found.proved and b'"tier_index"' not in content[place - 15 : place + 1]:
        assert meaning_of(bytes(content)) == meaning_of(sample().file()), content[max(0, place - 40) : place + 40]


def other(value: Any, seed: int) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 + seed
    if value is None:
        return seed
    place = seed % max(1, len(value))
    return value[:place] + ("0" if value[place : place + 1] != "0" else "1") + value[place + 1 :]
