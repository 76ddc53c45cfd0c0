"""Wire types of contracts: amounts are decimals in strings, times ISO 8601 in UTC."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.billing_calendar import months_after, zone_of
from galerne.billing.contracts.drawdown import Version
from galerne.billing.contracts.effect import Effect
from galerne.billing.contracts.service import ContractVersion
from galerne.billing.contracts.terms import Commitment, ContractTerms, Instalment, Renewal
from galerne.billing.prices.decimals import nano_of
from galerne.billing.prices.pricing import PPM
from galerne.kernel import BadRequest
from galerne.kernel.web import Text, UtcMoment
from galerne.ledger import amount_text


class InstalmentBody(BaseModel):
    """A part of a commitment and when it is due."""

    model_config = ConfigDict(extra="forbid")

    due_at: UtcMoment
    amount: Text


class CommitmentBody(BaseModel):
    """An amount to be spent; from the term's beginning to its end unless it says otherwise.

    A prepaid one without instalments is due at its beginning.
    """

    model_config = ConfigDict(extra="forbid")

    id: Text = Field(min_length=1, max_length=40)
    kind: Literal["prepaid", "postpaid"]
    amount: Text
    start: UtcMoment | None = None
    end: UtcMoment | None = None
    instalments: list[InstalmentBody] = []


class RenewalBody(BaseModel):
    """So many months more unless notice is given; amounts change by `uplift_ppm`, 1000000 for none."""

    model_config = ConfigDict(extra="forbid")

    months: int
    notice_days: int = Field(30, ge=0, le=366)
    uplift_ppm: int = Field(PPM, ge=0, le=10 * PPM)


class TermsIn(BaseModel):
    """A contract's terms. `effective_from` says from when an amendment counts; a first version does from `start`."""

    model_config = ConfigDict(extra="forbid")

    currency: Text
    start: UtcMoment
    months: int = Field(ge=1, le=120)
    time_zone: Text = "UTC"
    commitments: list[CommitmentBody] = []
    overage_ppm: int = PPM
    minimum: Text = "0"
    fee: Text = "0"
    price_list: Text | None = None
    renewal: RenewalBody | None = None
    payment_days: int = Field(30, ge=0, le=365)
    purchase_order: Text | None = None
    sla: dict[Text, Text | int | bool] = {}
    effective_from: UtcMoment | None = None

    def version(self) -> Version:
        """The same, as billing takes it; `BadRequest` for what is no amount or no time zone."""
        zone_of(self.time_zone)
        try:
            end = months_after(self.start, self.time_zone, self.months)
        except (ValueError, OverflowError):
            raise BadRequest("The term ends after the year 9999.", param="months") from None
        terms = ContractTerms(
            currency=self.currency,
            start=self.start,
            months=self.months,
            time_zone=self.time_zone,
            commitments=tuple(self._commitment(each, end) for each in self.commitments),
            overage_ppm=self.overage_ppm,
            minimum_nano=nano_of(self.minimum, param="minimum"),
            fee_nano=nano_of(self.fee, param="fee"),
            price_list=self.price_list,
            renewal=None if self.renewal is None else Renewal(**self.renewal.model_dump()),
            payment_days=self.payment_days,
            purchase_order=self.purchase_order,
            sla=self.sla,
        )
        return Version(self.effective_from or self.start, terms)

    def _commitment(self, body: CommitmentBody, end: datetime) -> Commitment:
        nano, start = nano_of(body.amount, param="commitments"), body.start or self.start
        parts = [
            Instalment(due_at=each.due_at, nano=nano_of(each.amount, param="commitments")) for each in body.instalments
        ]
        if body.kind == "prepaid" and not parts:
            parts = [Instalment(due_at=start, nano=nano)]
        return Commitment(
            id=body.id, kind=body.kind, nano=nano, start=start, end=body.end or end, instalments=tuple(parts)
        )


class PreviewIn(BaseModel):
    """An amendment to look at, and how much usage is expected in each month to come."""

    model_config = ConfigDict(extra="forbid")

    terms: TermsIn
    forecast: Text = "0"


class SignIn(BaseModel):
    """A signature under the terms whose SHA-256 that is."""

    model_config = ConfigDict(extra="forbid")

    version: int
    sha256: Text
    signed_by: Text


class ContractOut(BaseModel):
    """A contract's version; it counts once it is signed, from `effective_from` on."""

    object: Literal["contract"]
    id: str
    organization_id: str
    name: str
    version: int
    effective_from: datetime
    signed_by: str | None
    signed_at: datetime | None
    sha256: str
    terms: dict[str, Any]


class ContractList(BaseModel):
    """Contracts, or the versions of one."""

    object: Literal["list"]
    data: list[ContractOut]


class MonthEffectOut(BaseModel):
    """What becomes due in a month, without the amendment and with it."""

    start: datetime
    end: datetime
    before: str
    after: str
    difference: str


class EffectOut(BaseModel):
    """What an amendment would cost."""

    object: Literal["contract_effect"]
    currency: str
    difference: str
    months: list[MonthEffectOut]


def contract_fields(version: ContractVersion) -> dict[str, object]:
    """The fields of `ContractOut`."""
    same = ("name", "version", "effective_from", "signed_by", "signed_at", "sha256")
    fields = {name: getattr(version, name) for name in same}
    head = {"object": "contract", "id": version.contract_id, "organization_id": version.organisation_id}
    return {**head, **fields, "terms": _terms(version.terms)}


def effect_fields(effect: Effect) -> dict[str, object]:
    """The fields of `EffectOut`."""
    months = [
        {
            "start": month.period.start,
            "end": month.period.end,
            "before": amount_text(month.before_nano),
            "after": amount_text(month.after_nano),
            "difference": amount_text(month.after_nano - month.before_nano),
        }
        for month in effect.months
    ]
    difference = amount_text(effect.difference_nano)
    return {"object": "contract_effect", "currency": effect.currency, "difference": difference, "months": months}


def _terms(terms: ContractTerms) -> dict[str, object]:
    same = ("currency", "start", "months", "time_zone", "overage_ppm", "price_list", "payment_days", "purchase_order")
    commitments = [
        {
            "id": each.id,
            "kind": each.kind,
            "amount": amount_text(each.nano),
            "start": each.start,
            "end": each.end,
            "instalments": [{"due_at": part.due_at, "amount": amount_text(part.nano)} for part in each.instalments],
        }
        for each in terms.commitments
    ]
    renewal = terms.renewal
    names = ("months", "notice_days", "uplift_ppm")
    return {
        **{name: getattr(terms, name) for name in same},
        "end": terms.end,
        "commitments": commitments,
        "minimum": amount_text(terms.minimum_nano),
        "fee": amount_text(terms.fee_nano),
        "renewal": None if renewal is None else {name: getattr(renewal, name) for name in names},
        "sla": dict(terms.sla),
    }
