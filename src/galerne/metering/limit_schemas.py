"""Wire types of limits: input refuses unknown fields, output has no defaults."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from galerne.kernel.web import Text
from galerne.metering.limit_rules import LimitUse
from galerne.metering.limit_windows import Window
from galerne.metering.limits import LimitRule, NewLimit, Quantity, Scope


class LimitIn(BaseModel):
    """A limit to set. `amount` counts requests, tokens, requests at once, or billionths of `currency` (`nano`).

    The plan's and the model's limits are the operator's, who sets them with `galerne limits`.
    """

    model_config = ConfigDict(extra="forbid")

    scope: Scope
    scope_id: Text
    quantity: Quantity
    window: Window
    amount: int
    model: Text | None = None
    currency: Text | None = None

    def new_limit(self, model_id: str | None) -> NewLimit:
        """The same, as metering takes it, with the model's id for its name."""
        fields: dict[str, Any] = dict(self) | {"model": model_id}
        return NewLimit(**fields)


class LimitOut(BaseModel):
    """A limit; `set_by` says who may remove it."""

    object: Literal["limit"]
    id: str
    scope: Scope
    scope_id: str
    model: str | None
    quantity: Quantity
    window: Window
    currency: str | None
    amount: int
    set_by: Literal["operator", "organization", "workspace"]
    created_at: datetime | None


class LimitUseOut(LimitOut):
    """A limit and its use; null where others use it too, and `resets_at` where nobody knows.

    `used` is what gateways have taken of it, and contains the little that they hold and have not spent.
    """

    used: int | None
    remaining: int | None
    resets_at: datetime | None


class LimitList(BaseModel):
    """Limits, by scope and subject."""

    object: Literal["list"]
    data: list[LimitUseOut]


def limit_fields(rule: LimitRule) -> dict[str, object]:
    """The fields of `LimitOut`."""
    names = {"object": "limit", "set_by": rule.set_by}
    return {**asdict(rule), **names}


def limit_use_fields(use: LimitUse) -> dict[str, object]:
    """The fields of `LimitUseOut`, and the subject whose use it is."""
    standing = {"subject": use.subject, "used": use.used, "remaining": use.remaining, "resets_at": use.resets_at}
    return limit_fields(use.rule) | standing
