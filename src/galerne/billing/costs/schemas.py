"""Wire types of costs: amounts are decimals in strings, days ISO 8601."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from galerne.billing.costs.query import MOST_ROWS, Cost, CostGroup, CostQuery
from galerne.kernel.web import Text, UtcMoment
from galerne.ledger import amount_text


class CostsIn(BaseModel):
    """Which use, summed by what. Lists are repeated: `group_by=day&group_by=model`; `end` is exclusive."""

    model_config = ConfigDict(extra="forbid")

    start: UtcMoment | None = None
    end: UtcMoment | None = None
    group_by: list[CostGroup] = Field([], max_length=9)
    workspace_id: list[Text] = []
    api_key_id: list[Text] = []
    model: list[Text] = []
    cost_centre: list[Text] = []
    currency: Text | None = None
    limit: int = Field(100, ge=1, le=MOST_ROWS)
    page: Text | None = Field(None, description="`next_page` of the page before.")

    @field_validator("workspace_id", "api_key_id", "model", "cost_centre")
    @classmethod
    def _bounded(cls, values: list[str], info: ValidationInfo) -> list[str]:
        if len(values) > 100:
            raise ValueError(f"{info.field_name} is given at most 100 times")
        return values

    def query(self, organisation_id: str, workspace_ids: list[str]) -> CostQuery:
        """The same for one organisation, and for those of its workspaces that the caller may see."""
        return CostQuery(
            organisation_id=organisation_id,
            group_by=self.group_by,
            workspace_ids=workspace_ids,
            key_ids=self.api_key_id,
            models=self.model,
            cost_centres=self.cost_centre,
            currency=self.currency,
            since=self.start,
            until=self.end,
        )


class CostOut(BaseModel):
    """One sum; a group that was not asked for is null, and so is what has none. `cost` is exact, a decimal as text."""

    object: Literal["cost"]
    day: str | None
    organisation_id: str | None
    workspace_id: str | None
    api_key_id: str | None
    cost_centre: str | None
    model: str | None
    token_class: str | None
    service_tier: str | None
    zone: str | None
    currency: str
    cost: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    quantity: int | None
    requests: int | None


class CostPage(BaseModel):
    """Sums in the order of their groups; the next page is `page` = `next_page`."""

    object: Literal["page"]
    data: list[CostOut]
    has_more: bool
    next_page: str | None


def cost_fields(query: CostQuery, cost: Cost) -> dict[str, object]:
    """A sum's names and amounts, in the order of a file's columns; the cost as a decimal."""
    names = dict(zip(query.columns, cost.names, strict=True))
    by_class = {} if cost.requests is None else {"quantity": cost.quantity, "requests": cost.requests}
    tokens = {name: getattr(cost, name) for name in ("input_tokens", "cached_tokens", "output_tokens")}
    return {**names, "cost": amount_text(cost.nano), **tokens, **by_class}


def cost_out(query: CostQuery, cost: Cost) -> CostOut:
    """The row that a page shows."""
    blank = dict.fromkeys(CostOut.model_fields)
    return CostOut.model_validate(blank | cost_fields(query, cost) | {"object": "cost"})
