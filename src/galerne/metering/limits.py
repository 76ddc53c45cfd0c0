"""Limits as values: what a rule counts and for whom, and which pools a request draws from. Pure; knows no database."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from galerne.kernel import BadRequest
from galerne.metering.limit_windows import Window

Scope = Literal["key", "workspace", "organisation", "plan", "model"]
Quantity = Literal["requests", "tokens", "nano", "concurrent"]
Law = Literal["bucket", "window", "gauge"]

MOST_PER_MINUTE = 10**13
"""Largest amount of a rule by the minute: a pool counts sixty-thousandths of it in 63 bits."""
MOST = 10**18
"""Largest amount of any other rule."""

_LAWS: dict[Window, Law] = {
    "minute": "bucket",
    "5h": "window",
    "day": "window",
    "week": "window",
    "month": "window",
    "none": "gauge",
}
_OWN_RULES: tuple[tuple[str, Quantity], ...] = (("rpm", "requests"), ("tpm", "tokens"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLimit:
    """How much of one quantity whoever `scope` and `scope_id` name may use in one window.

    `model` None counts every model. `currency` goes with `nano`, billionths of its unit, alone.
    """

    scope: Scope
    scope_id: str
    quantity: Quantity
    window: Window
    amount: int
    model: str | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule(NewLimit):
    """A limit that was set; `organisation_id` and `workspace_id` say by whom, who alone, or who stands above, may take
    it away: None is the operator, or the whole organisation.
    """

    id: str
    organisation_id: str | None = None
    workspace_id: str | None = None
    created_at: datetime | None = None

    @property
    def set_by(self) -> Literal["operator", "organization", "workspace"]:
        """Who set it."""
        if self.organisation_id is None:
            return "operator"
        return "organization" if self.workspace_id is None else "workspace"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What is shared of one rule by one subject: `id` is `<rule id>:<subject>`."""

    id: str
    quantity: Quantity
    window: Window
    amount: int
    scope: Scope = "key"
    currency: str | None = None

    @property
    def law(self) -> Law:
        """How it fills again: a bucket all the time, a window at its end, a gauge when what was taken is given back."""
        return _LAWS[self.window]

    @property
    def rule_id(self) -> str:
        """The rule that it belongs to."""
        return self.id.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSubject:
    """Whom a request is counted for: its key, where that belongs, and the terms that the key itself has."""

    key_id: str
    workspace_id: str | None
    organisation_id: str
    plan: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def pool_specs(
    rules: Iterable[LimitRule], subject: LimitSubject, model_id: str, defaults: tuple[int, int]
) -> tuple[PoolSpec, ...]:
    """The pools that a request of `subject` for `model_id` draws from, by id; all of them must have enough.

    A key's own requests and tokens per minute are rules like others. `defaults` (requests, tokens) stand in for a key
    that has neither such a term nor such a rule of its own.
    """
    applying = [rule for rule in rules if _applies(rule, subject, model_id)]
    specs = [
        PoolSpec(
            f"{rule.id}:{_pool_subject(rule, subject)}",
            rule.quantity,
            rule.window,
            rule.amount,
            rule.scope,
            rule.currency,
        )
        for rule in applying
    ]
    own = (subject.requests_per_minute, subject.tokens_per_minute)
    for (rule_id, quantity), amount, default in zip(_OWN_RULES, own, defaults, strict=True):
        if amount is not None:
            specs.append(PoolSpec(f"{rule_id}:{subject.key_id}", quantity, "minute", amount))
        elif not any(_stands_in(rule, quantity) for rule in applying):
            specs.append(PoolSpec(f"{rule_id}:{subject.key_id}", quantity, "minute", default))
    return tuple(sorted(specs, key=lambda spec: spec.id))


def rule_id(new: NewLimit, organisation_id: str | None, workspace_id: str | None) -> str:
    """The id of a rule set by those: a digest of all but its amount, so that a rule that is set again is the same."""
    parts = (organisation_id, workspace_id, new.scope, new.scope_id, new.model, new.quantity, new.window, new.currency)
    return hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()[:32]


def check_rule(rule: NewLimit) -> None:
    """Raise `BadRequest` naming the field if there can be no such rule."""
    if (rule.quantity == "concurrent") != (rule.window == "none"):
        raise BadRequest("`concurrent` goes with the window `none`, and every other quantity with one.", param="window")
    if (rule.quantity == "nano") != (rule.currency is not None):
        raise BadRequest("A currency goes with the quantity `nano`, and only with it.", param="currency")
    code = rule.currency
    if code is not None and not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        raise BadRequest("A currency is its ISO 4217 code, such as EUR.", param="currency")
    most = MOST_PER_MINUTE if rule.window == "minute" else MOST
    if not 1 <= rule.amount <= most:
        raise BadRequest(f"The amount must be 1 to {most}.", param="amount")
    if not 1 <= len(rule.scope_id) <= 100:
        raise BadRequest("Say whom the limit is for, in 1 to 100 characters.", param="scope_id")
    if rule.model is not None and (rule.scope == "model" or not 1 <= len(rule.model) <= 100):
        raise BadRequest("Name a model of 1 to 100 characters, and none for a model's own limit.", param="model")


def _applies(rule: LimitRule, subject: LimitSubject, model_id: str) -> bool:
    if rule.model is not None and rule.model != model_id:
        return False
    return rule.scope_id == _member(rule.scope, subject, model_id)


def _member(scope: Scope, subject: LimitSubject, model_id: str) -> str | None:
    if scope == "key":
        return subject.key_id
    if scope == "workspace":
        return subject.workspace_id
    if scope == "organisation":
        return subject.organisation_id
    return subject.plan if scope == "plan" else model_id


def _pool_subject(rule: LimitRule, subject: LimitSubject) -> str:
    if rule.scope == "plan":
        return subject.organisation_id
    return "all" if rule.scope == "model" else rule.scope_id


def _stands_in(rule: LimitRule, quantity: Quantity) -> bool:
    return rule.scope == "key" and rule.model is None and rule.quantity == quantity and rule.window == "minute"
