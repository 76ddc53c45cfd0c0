"""Where an invoice stands: a fold over what happened to it, oldest first. Pure.

draft -> final -> sent -> paid, or void; a draft over nothing to pay is `empty` and never gets a number. Paid is what
has nothing open: an invoice whose payment is returned is open again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from galerne.kernel import Conflict, invariant

InvoiceState = Literal["draft", "final", "sent", "paid", "void", "empty"]
HappeningKind = Literal["drafted", "emptied", "finalised", "sent", "paid", "returned", "credited", "voided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened to an invoice; `amount_minor` of its currency: what was due, paid, returned, credited.

    `reference` names the payment, the credit note or the reason; the same happening with one name happens once.
    """

    kind: HappeningKind
    at: datetime
    amount_minor: int = 0
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happenings have come to, in minor units: `paid_minor` is less what was returned."""

    due_minor: int = 0
    paid_minor: int = 0
    credited_minor: int = 0
    is_final: bool = False
    is_sent: bool = False
    is_void: bool = False
    is_empty: bool = False

    @property
    def state(self) -> InvoiceState:
        """Where it stands."""
        if self.is_void or self.is_empty:
            return "void" if self.is_void else "empty"
        if not self.is_final:
            return "draft"
        return "paid" if self.open_minor <= 0 else "sent" if self.is_sent else "final"

    @property
    def open_minor(self) -> int:
        """What is still to be paid; negative for what is to be given back."""
        return self.due_minor - self.paid_minor - self.credited_minor


def after(course: Course, happening: Happening) -> Course:
    """The course once that has happened too; `Conflict` (code `invoice_state`) where it cannot."""
    problem = _problem(course, happening)
    if problem:
        raise Conflict(problem, code="invoice_state")
    amount = happening.amount_minor
    match happening.kind:
        case "drafted":
            return course
        case "emptied":
            return replace(course, is_empty=True)
        case "finalised":
            return replace(course, is_final=True, due_minor=amount)
        case "sent":
            return replace(course, is_sent=True)
        case "paid":
            return replace(course, paid_minor=course.paid_minor + amount)
        case "returned":
            return replace(course, paid_minor=course.paid_minor - amount)
        case "credited":
            return replace(course, credited_minor=course.credited_minor + amount)
        case "voided":
            return replace(course, is_void=True)


def course_of(happenings: Iterable[Happening]) -> Course:
    """What these happenings, oldest first, come to."""
    course = Course()
    for happening in happenings:
        course = after(course, happening)
    return course


def _problem(course: Course, happening: Happening) -> str:
    kind, amount = happening.kind, happening.amount_minor
    invariant(amount >= 0, "what happens to an invoice has no negative amount")
    if kind in ("drafted", "emptied", "finalised"):
        open_ = course.is_final or course.is_void or course.is_empty
        return f"The invoice is {course.state} already." if open_ else ""
    if not course.is_final or course.is_void:
        return f"The invoice is {course.state}; only one that is final can be {kind}."
    if kind in ("paid", "returned", "credited") and amount == 0:
        return f"An invoice cannot be {kind} with nothing."
    if kind == "paid" and amount > course.open_minor:
        return f"{amount} is more than the {max(0, course.open_minor)} that are open."
    if kind == "returned" and amount > course.paid_minor:
        return f"{amount} is more than the {course.paid_minor} that were paid."
    if kind == "credited" and amount > course.due_minor - course.credited_minor:
        return f"{amount} is more than the {course.due_minor - course.credited_minor} that were invoiced."
    if kind == "voided" and (course.paid_minor or course.credited_minor):
        return "Something was paid or credited already; write a credit note instead."
    return ""
