"""The price book: which rate counts for a use at a time, and what modifiers make of it. Pure and exact.

A rate names what it is for: a model, a token class and, where it must, a service tier, a zone, batch. What it leaves
open matches anything, and there a modifier applies. Rates lie in price lists; a customer's chain of lists is asked in
order. Rates and modifiers are never changed: of two for the same thing the one that began last counts, of two that
began together the one of the later version.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from galerne.billing.prices.pricing import PPM, TIER_MODIFIERS_PPM, ServiceTier, TokenClass
from galerne.billing.prices.volume_tiers import Step, VolumeMode

ModifierKind = Literal["tier", "batch", "cached", "zone"]

DEFAULT_LIST = "default"
"""The price list that counts for whoever has no other, and for what the others leave out."""

CACHED_PPM = 100_000
BATCH_PPM = 500_000

TOKEN_CLASSES: tuple[TokenClass, ...] = get_args(TokenClass)

UNITS: Mapping[TokenClass, int] = MappingProxyType(
    {
        "input": PPM,
        "cached": PPM,
        "output": PPM,
        "reasoning": PPM,
        "embeddings": PPM,
        "training_tokens": PPM,
        "pages": 1000,
        "audio_seconds": 3600,
        "replica_seconds": 3600,
        "reserved_throughput": 1,
        "stored_mib_hours": 1024 * 730,
    }
)
"""For how many of a class a price is quoted: 1,000,000 tokens, 1,000 pages, an hour, a GiB for a month of 730 hours."""

_TIERS: Mapping[str, int] = MappingProxyType({str(tier): ppm for tier, ppm in TIER_MODIFIERS_PPM.items()})
_STANDS_FOR: Mapping[TokenClass, TokenClass] = MappingProxyType(
    {"cached": "input", "embeddings": "input", "reasoning": "output"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a rate is for; None matches anything."""

    token_class: TokenClass
    model_id: str | None = None
    service_tier: ServiceTier | None = None
    zone: str | None = None
    batch: bool | None = None


class Use(NamedTuple):
    """What was or is to be used, and how."""

    model_id: str
    token_class: TokenClass
    service_tier: str = "standard"
    zone: str = ""
    batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What `per` units cost in nano-units of `currency` from `effective_from` on; `nano` None withdraws the rate.

    `steps` are what further units cost once a period's volume has passed their start; see `volume_tiers`.
    """

    id: str
    list_id: str
    version: int
    currency: str
    match: Match
    effective_from: datetime
    nano: int | None
    per: int
    volume: VolumeMode | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Modifier:
    """What a list does, from a time on, to prices that leave open what `kind` is about; `value` is the tier or zone."""

    list_id: str
    version: int
    effective_from: datetime
    kind: ModifierKind
    value: str
    ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A plan or an organisation has a price list from a time on; `list_id` None ends that."""

    id: str
    scope: Literal["plan", "organisation"]
    subject: str
    list_id: str | None
    effective_from: datetime


class Price(NamedTuple):
    """What one unit costs, exactly: `nano` of the rate's currency, all modifiers in; `factor` is what they made."""

    rate: Rate
    nano: Fraction
    factor: Fraction


def conditions_of(tier: str) -> tuple[str, bool]:
    """Service tier and batch of a request that the gateway served in `tier`."""
    return ("standard", True) if tier in ("batch", "flex") else (tier, False)


class PriceBook:
    """Rates, modifiers and who has which list, to be asked for a price. Books that say the same are equal."""

    def __init__(
        self, rates: Iterable[Rate], modifiers: Iterable[Modifier] = (), assignments: Iterable[Assignment] = ()
    ) -> None:
        self.rates = tuple(rates)
        self.modifiers = tuple(modifiers)
        self._assignments = tuple(assignments)
        self._assigned_to: dict[tuple[str, str], list[Assignment]] = {}
        for each in self._assignments:
            self._assigned_to.setdefault((each.scope, each.subject), []).append(each)
        self.changes = sorted({each.effective_from for each in (*self.rates, *self.modifiers, *self._assignments)})
        """When anything begins, in order: between two of these no price changes."""
        self._rates: dict[tuple[str, str, TokenClass], list[Rate]] = {}
        for rate in self.rates:
            self._rates.setdefault((rate.list_id, rate.currency, rate.match.token_class), []).append(rate)
        self._modifiers: dict[tuple[str, ModifierKind, str], list[Modifier]] = {}
        for each in self.modifiers:
            self._modifiers.setdefault((each.list_id, each.kind, each.value), []).append(each)

    def plus(self, rates: Iterable[Rate], modifiers: Iterable[Modifier]) -> "PriceBook":
        """The same with more in it."""
        return PriceBook((*self.rates, *rates), (*self.modifiers, *modifiers), self._assignments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PriceBook) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)

    @property
    def _said(self) -> tuple[object, ...]:
        return self.rates, self.modifiers, self._assignments

    def chain(self, organisation_id: str, plan: str, at: datetime) -> tuple[str, ...]:
        """An organisation's price lists, the one asked first in front: its own, its plan's, the default."""
        own = (self._assigned("organisation", organisation_id, at), self._assigned("plan", plan, at))
        return (*(list_id for list_id in own if list_id not in (None, DEFAULT_LIST)), DEFAULT_LIST)

    def segment(self, at: datetime) -> int:
        """How many changes began by `at`: at two times with the same number every price is the same."""
        return bisect_right(self.changes, at)

    def next_change(self, at: datetime) -> datetime | None:
        """When the first thing after `at` begins."""
        following = self.segment(at)
        return self.changes[following] if following < len(self.changes) else None

    def zones(self) -> frozenset[str]:
        """Zones that a rate or modifier names; all others cost the same."""
        named = {rate.match.zone for rate in self.rates} | {
            each.value for each in self.modifiers if each.kind == "zone"
        }
        return frozenset(zone for zone in named if zone is not None)

    def currencies(self, chain: Sequence[str], model_id: str, at: datetime) -> list[str]:
        """Currencies in which lists of the chain price the model by `at`, the one whose rate began last in front."""
        newest: dict[str, tuple[datetime, int]] = {}
        for rate in self.rates:
            if rate.list_id in chain and rate.effective_from <= at and rate.match.model_id in (model_id, None):
                began = (rate.effective_from, rate.version)
                newest[rate.currency] = max(began, newest.get(rate.currency, began))
        return sorted(sorted(newest), key=lambda currency: newest[currency], reverse=True)

    def price(self, chain: Sequence[str], currency: str, use: Use, at: datetime) -> Price | None:
        """The price of a use for whoever has that chain of lists; None if no list of it has one in that currency."""
        for list_id in chain:
            rate = self._most_specific(list_id, currency, use, at)
            if rate is not None and rate.nano is not None:
                factor = self._factor(chain, rate, use, at)
                return Price(rate, Fraction(rate.nano, rate.per) * factor, factor)
        return None

    def _assigned(self, scope: str, subject: str, at: datetime) -> str | None:
        began = [each for each in self._assigned_to.get((scope, subject), ()) if each.effective_from <= at]
        newest = max(began, key=lambda each: (each.effective_from, each.id), default=None)
        return None if newest is None else newest.list_id

    def _most_specific(self, list_id: str, currency: str, use: Use, at: datetime) -> Rate | None:
        newest: dict[Match, Rate] = {}
        for token_class in _classes(use.token_class):
            for rate in self._rates.get((list_id, currency, token_class), ()):
                if rate.effective_from <= at and matches(rate.match, use):
                    known = newest.get(rate.match)
                    if known is None or _began(rate) > _began(known):
                        newest[rate.match] = rate
        offered = [rate for rate in newest.values() if rate.nano is not None]
        return max(offered, key=lambda rate: specificity(rate.match, use), default=None)

    def _factor(self, chain: Sequence[str], rate: Rate, use: Use, at: datetime) -> Fraction:
        match = rate.match
        factor = Fraction(1)
        if match.service_tier is None:
            default_ppm = _TIERS.get(use.service_tier, PPM)
            factor *= self._modifier(chain, ("tier", use.service_tier), at, default_ppm)
        if match.zone is None:
            factor *= self._modifier(chain, ("zone", use.zone), at, PPM)
        if match.batch is None and use.batch:
            factor *= self._modifier(chain, ("batch", ""), at, BATCH_PPM)
        if use.token_class == "cached" and match.token_class != "cached":  # noqa: S105 - no password but tokens
            factor *= self._modifier(chain, ("cached", ""), at, CACHED_PPM)
        return factor

    def _modifier(
        self, chain: Sequence[str], what: tuple[ModifierKind, str], at: datetime, default_ppm: int
    ) -> Fraction:
        for list_id in chain:
            began = [each for each in self._modifiers.get((list_id, *what), ()) if each.effective_from <= at]
            if began:
                return Fraction(max(began, key=_began).ppm, PPM)
        return Fraction(default_ppm, PPM)


def matches(match: Match, use: Use) -> bool:
    """Whether a rate for `match` may price the use; a class may be priced by the one that it stands under."""
    return (
        match.token_class in _classes(use.token_class)
        and match.model_id in (None, use.model_id)
        and match.service_tier in (None, use.service_tier)
        and match.zone in (None, use.zone)
        and match.batch in (None, use.batch)
    )


def specificity(match: Match, use: Use) -> tuple[int, ...]:
    """How closely a matching rate fits, to be compared: first how much it names, then what, in a fixed order.

    The order is model, token class itself, service tier, zone, batch. Two different matches never compare equal.
    """
    named = (
        match.model_id is not None,
        match.token_class == use.token_class,
        match.service_tier is not None,
        match.zone is not None,
        match.batch is not None,
    )
    return (sum(named), *named)


def _classes(token_class: TokenClass) -> tuple[TokenClass, ...]:
    other = _STANDS_FOR.get(token_class)
    return (token_class,) if other is None else (token_class, other)


def _began(each: Rate | Modifier) -> tuple[datetime, int]:
    return each.effective_from, each.version


def priced_id(price: Price) -> str:
    """The `rate_id` of what is rated at a price: the rate's, and what modifiers multiply it by: `ID*7/4`."""
    return price.rate.id if price.factor == 1 else f"{price.rate.id}*{price.factor}"
