"""What contracts make due, against a naive account, and what amendments can and cannot change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.billing import Period
from galerne.billing.contracts import Commitment, ContractTerms, Instalment, Renewal, Version, contract_charges, drawn
from galerne.billing.contracts.effect import effect_of
from galerne.billing.contracts.terms import check_amendment, check_terms, renewed
from galerne.kernel import BadRequest, Conflict, GalerneError

START = datetime(2026, 1, 31, tzinfo=UTC)
TERMS = ContractTerms(currency="EUR", start=START, months=12)
DAY = timedelta(days=1)


def committed(kind: Any, nano: int, *instalments: tuple[int, int], name: str = "c", months: int = 12) -> Commitment:
    """A commitment over the first months, with (month, amount) for its instalments."""
    periods = TERMS.periods()
    parts = tuple(Instalment(due_at=periods[month].start, nano=part) for month, part in instalments)
    return Commitment(id=name, kind=kind, nano=nano, start=START, end=periods[months - 1].end, instalments=parts)


def usage(*nano: int, terms: ContractTerms = TERMS) -> dict[Period, int]:
    return dict(zip(terms.periods(), nano, strict=False))


def lines(terms: ContractTerms, *nano: int) -> list[tuple[str, int]]:
    charges = contract_charges("k", [Version(terms.start, terms)], usage(*nano, terms=terms))
    return [(charge.kind, charge.amount_nano) for charge in charges]


def test_a_month_ends_on_its_last_day_and_comes_back_to_the_31st() -> None:
    ends = [f"{period.end:%m-%d}" for period in TERMS.periods()[:3]]
    assert ends == ["02-28", "03-31", "04-30"]


def test_a_prepaid_commitment_is_paid_by_its_schedule_and_usage_draws_from_it() -> None:
    terms = replace(TERMS, commitments=(committed("prepaid", 100, (0, 60), (6, 40)),), overage_ppm=1_500_000)
    assert lines(terms, 30, 50, 40) == [("commitment", 60), ("overage", 30), ("commitment", 40)]
    used = drawn([Version(START, terms)], usage(30, 50, 40))[:3]
    assert [(each.covered_nano, each.beyond_nano) for each in used] == [(30, 0), (50, 0), (20, 20)]


def test_a_postpaid_commitment_is_paid_as_it_is_used_and_trued_up_at_its_end() -> None:
    terms = replace(TERMS, commitments=(committed("postpaid", 100),))
    assert lines(terms, 30, 0, 20) == [("usage", 30), ("usage", 20), ("true_up", 50)]
    assert lines(terms, 90, 30) == [("usage", 90), ("usage", 10), ("overage", 20)]


def test_what_was_trued_up_early_covers_the_usage_that_follows() -> None:
    terms = replace(TERMS, commitments=(committed("postpaid", 100, (3, 50), (9, 50)),))
    assert lines(terms, 10, 0, 0, 0, 60) == [("usage", 10), ("true_up", 40), ("usage", 20), ("true_up", 30)]


def test_a_minimum_is_charged_in_each_month_that_uses_less_and_a_fee_in_each() -> None:
    terms = replace(TERMS, months=2, minimum_nano=10, fee_nano=3)
    assert lines(terms, 4, 15) == [
        ("recurring", 3),
        ("usage", 4),
        ("minimum", 6),
        ("recurring", 3),
        ("usage", 15),
    ]


def test_the_commitment_that_ends_first_is_drawn_first() -> None:
    short, long = committed("prepaid", 10, (0, 10), name="a", months=1), committed("prepaid", 10, (0, 10), name="b")
    terms = replace(TERMS, commitments=(long, short))
    used = drawn([Version(START, terms)], usage(5, 12))
    assert [each.beyond_nano for each in used[:2]] == [0, 2]


def test_a_renewal_makes_the_commitment_again_with_uplift_and_keeps_what_was() -> None:
    renewal = Renewal(months=12, uplift_ppm=1_033_333)
    terms = replace(TERMS, commitments=(committed("prepaid", 100, (0, 33), (6, 67)),), renewal=renewal, fee_nano=100)
    again = renewed(terms)
    check_terms(again)
    check_amendment(terms, again, terms.end)
    assert (again.months, again.fee_nano) == (24, 103)
    old, new = again.commitments
    assert (old, new.nano, [part.nano for part in new.instalments]) == (terms.commitments[0], 103, [34, 69])
    versions = [Version(START, terms), Version(terms.end, again)]
    recurring = [each.amount_nano for each in contract_charges("k", versions, {}) if each.kind == "recurring"]
    assert recurring == [100] * 12 + [103] * 12


def test_the_effect_of_an_amendment_is_shown_before_it_is_signed() -> None:
    terms = replace(TERMS, commitments=(committed("postpaid", 100),))
    more = replace(terms, commitments=(committed("postpaid", 300),))
    effect = effect_of([Version(START, terms)], more, TERMS.periods()[1].start, usage(30), 10)
    assert effect.difference_nano == 300 - 30 - 110
    assert sum(month.before_nano for month in effect.months) == 140


@pytest.mark.parametrize(
    "bad",
    [
        {"currency": "euro"},
        {"months": 0},
        {"months": 121},
        {"time_zone": "Mars/Olympus"},
        {"minimum_nano": -1},
        {"fee_nano": -1},
        {"overage_ppm": -1},
        {"renewal": Renewal(months=0)},
        {"commitments": (committed("prepaid", 100, (0, 99)),)},
        {"commitments": (committed("prepaid", 100),)},
        {"commitments": (committed("prepaid", -1, (0, -1)),)},
        {"commitments": (committed("prepaid", 2, (0, 1), (0, 1)),)},
        {"commitments": (committed("postpaid", 1), committed("postpaid", 1))},
        {"commitments": (replace(committed("postpaid", 1), end=START),)},
        {"commitments": (replace(committed("postpaid", 1), start=START - DAY),)},
    ],
)
def test_terms_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        check_terms(replace(TERMS, **bad))


@pytest.mark.parametrize(
    ("change", "days", "error"),
    [
        ({"currency": "USD"}, 40, BadRequest),
        ({"start": START + DAY}, 40, BadRequest),
        ({"time_zone": "Europe/Paris"}, 40, BadRequest),
        ({"months": 1}, 40, BadRequest),
        ({"fee_nano": 1}, -1, BadRequest),
        ({"fee_nano": 1}, 800, BadRequest),
        ({"commitments": ()}, 40, BadRequest),
        ({"renewal": None}, 360, Conflict),
    ],
)
def test_an_amendment_that_would_change_what_is_due_is_refused(
    change: dict[str, Any], days: int, error: type[GalerneError]
) -> None:
    terms = replace(TERMS, commitments=(committed("prepaid", 10, (0, 10)),), renewal=Renewal(months=12))
    with pytest.raises(error):
        check_amendment(terms, replace(terms, **change), START + days * DAY)


NANO = st.integers(0, 10**12)
COMMITMENTS = st.lists(
    st.tuples(
        st.sampled_from(["prepaid", "postpaid"]),
        st.integers(1, 12),
        st.lists(
            st.tuples(st.integers(0, 11), st.integers(1, 10**11)), min_size=1, max_size=4, unique_by=lambda x: x[0]
        ),
    ),
    max_size=3,
)


def drafted(commitments: list[Any], **more: Any) -> ContractTerms:
    made = [
        committed(kind, sum(part for _, part in parts), *parts, name=str(number), months=months)
        for number, (kind, months, parts) in enumerate(commitments)
    ]
    return replace(TERMS, commitments=tuple(made), **more)


@settings(max_examples=150)
@given(COMMITMENTS, st.lists(NANO, max_size=12), st.integers(0, 3_000_000), NANO)
def test_all_that_is_used_and_all_that_is_committed_is_charged_exactly_once(
    commitments: list[Any], used: list[int], overage_ppm: int, minimum_nano: int
) -> None:
    terms = drafted(commitments, overage_ppm=overage_ppm, minimum_nano=minimum_nano)
    check_terms(terms)
    charges = contract_charges("k", [Version(START, terms)], usage(*used))
    months = drawn([Version(START, terms)], usage(*used))
    sums = {
        kind: sum(each.amount_nano for each in charges if each.kind == kind) for kind in ("usage", "overage", "minimum")
    }
    paid = sum(each.amount_nano for each in charges if each.kind in ("commitment", "usage", "true_up"))
    beyond = [month.beyond_nano for month in months]
    assert sum(used) == sum(month.covered_nano + month.beyond_nano for month in months)
    assert paid == (sum(each.nano for each in terms.commitments) if commitments else sum(used))
    if commitments:
        assert abs(sums["overage"] * 1_000_000 - sum(beyond) * overage_ppm) <= 500_000 * 12
    assert sums["minimum"] == sum(max(0, minimum_nano - nano) for nano in [*used, *([0] * (12 - len(used)))])
    assert len({each.id for each in charges}) == len(charges)
    assert all(each.amount_nano > 0 for each in charges)


@settings(max_examples=100)
@given(COMMITMENTS, COMMITMENTS, st.lists(NANO, max_size=12), st.integers(0, 360))
def test_an_amendment_changes_nothing_that_was_due_before(
    commitments: list[Any], others: list[Any], used: list[int], days: int
) -> None:
    before, at = drafted(commitments), START + days * DAY
    after = drafted(others, fee_nano=7)
    try:
        check_amendment(before, after, at)
    except GalerneError:
        after = replace(before, fee_nano=7, overage_ppm=2_000_000)
    old = contract_charges("k", [Version(START, before)], usage(*used))
    new = contract_charges("k", [Version(START, before), Version(at, after)], usage(*used))
    assert [each for each in old if each.due_at < at] == [each for each in new if each.due_at < at]
