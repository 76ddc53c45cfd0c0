"""Service tiers: what a caller asks for, what its plan lets it have, what each dialect calls it. Pure."""

from galerne.billing import Plan
from galerne.gateway.dialect import Dialect
from galerne.gateway.tickets import Tier

__all__ = ["served_name", "tier_of"]

_ASKED: dict[str, Tier] = {"priority": "priority", "fast": "priority", "scale": "priority", "flex": "batch"}
_OPENAI: dict[Tier, str] = {"priority": "priority", "standard": "default", "batch": "flex"}
_MISTRAL: dict[Tier, str] = {"priority": "priority", "standard": "standard", "batch": "flex"}


def tier_of(asked: str | None, plan: Plan) -> Tier:
    """The tier that serves a request: `auto` gives the plan's best, `priority` what the plan allows of it, `flex` the
    cheap one, and `default`, `standard_only` or nothing the standard one, so that nobody pays more without asking.
    """
    if asked == "auto":
        return plan.tier
    wanted = _ASKED.get(asked or "", "standard")
    return wanted if plan.allows(wanted) else plan.tier


def served_name(tier: Tier, dialect: Dialect) -> str:
    """What an answer calls the tier that served it."""
    return (_MISTRAL if dialect == "mistral" else _OPENAI)[tier]
