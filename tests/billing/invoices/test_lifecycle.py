"""What an invoice's course allows, and that nothing is paid, returned or credited above what there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing.invoices import Course, Happening, HappeningKind, after, course_of
from galerne.kernel import Conflict
from tests.identity.tenants import NOW

KINDS: tuple[HappeningKind, ...] = (
    "drafted",
    "emptied",
    "finalised",
    "sent",
    "paid",
    "returned",
    "credited",
    "voided",
)


def happening(kind: HappeningKind, amount: int = 0) -> Happening:
    return Happening(kind=kind, at=NOW, amount_minor=amount)


FINAL = [happening("drafted"), happening("finalised", 100)]


@pytest.mark.parametrize(
    ("then", "state", "open_minor"),
    [
        ([], "final", 100),
        ([happening("sent")], "sent", 100),
        ([happening("paid", 40)], "final", 60),
        ([happening("sent"), happening("paid", 100)], "paid", 0),
        ([happening("paid", 100), happening("returned", 30)], "final", 30),
        ([happening("credited", 100)], "paid", 0),
        ([happening("paid", 100), happening("credited", 20)], "paid", -20),
        ([happening("voided")], "void", 100),
    ],
)
def test_an_invoice_goes_from_final_to_paid_or_void(then: list[Happening], state: str, open_minor: int) -> None:
    course = course_of([*FINAL, *then])
    assert (course.state, course.open_minor) == (state, open_minor)


@pytest.mark.parametrize(
    "happenings",
    [
        [happening("drafted"), happening("sent")],
        [happening("drafted"), happening("paid", 1)],
        [happening("emptied"), happening("finalised", 1)],
        [*FINAL, happening("finalised", 100)],
        [*FINAL, happening("paid", 101)],
        [*FINAL, happening("paid", 0)],
        [*FINAL, happening("paid", 60), happening("returned", 61)],
        [*FINAL, happening("credited", 60), happening("credited", 41)],
        [*FINAL, happening("paid", 1), happening("voided")],
        [*FINAL, happening("credited", 1), happening("voided")],
        [*FINAL, happening("voided"), happening("paid", 1)],
        [*FINAL, happening("voided"), happening("sent")],
    ],
)
def test_what_cannot_happen_is_a_conflict(happenings: list[Happening]) -> None:
    with pytest.raises(Conflict) as refusal:
        course_of(happenings)
    assert refusal.value.code == "invoice_state"


@given(st.lists(st.builds(happening, st.sampled_from(KINDS), st.integers(0, 50)), max_size=30))
def test_whatever_happens_no_more_is_paid_returned_or_credited_than_there_is(happenings: list[Happening]) -> None:
    course = Course()
    for each in happenings:
        try:
            course = after(course, each)
        except Conflict:
            continue
        assert 0 <= course.paid_minor <= course.due_minor
        assert 0 <= course.credited_minor <= course.due_minor
        assert not (course.is_void and (course.paid_minor or course.credited_minor))
