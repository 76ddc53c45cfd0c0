"""Price books to test with: rates made short, and what Hypothesis draws them from."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from galerne.billing import DEFAULT_LIST, UNITS, Customer, Match, Modifier, PriceBook, Rate, Use

START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CUSTOMER = Customer("org", "free", "EUR")
TIERS = ("standard", "priority", "batch")
ZONES = ("", "fr", "de")


def rate(
    nano: int | None, version: int = 1, begin: datetime = START, list_id: str = DEFAULT_LIST, **match: object
) -> Rate:
    found = Match(**match)  # type: ignore[arg-type]  # what a test names
    return Rate(
        id=f"r{version}",
        list_id=list_id,
        version=version,
        currency="EUR",
        match=found,
        effective_from=begin,
        nano=nano,
        per=UNITS[found.token_class],
    )


matches = st.builds(
    Match,
    token_class=st.sampled_from(["input", "cached", "output", "embeddings"]),
    model_id=st.sampled_from([None, "large", "small"]),
    service_tier=st.sampled_from([None, "standard", "priority"]),
    zone=st.sampled_from([None, "fr", "de"]),
    batch=st.sampled_from([None, True, False]),
)
prices = st.integers(0, 10**13)
rates = st.lists(
    st.builds(
        lambda match, nano, day, list_id: replace(
            rate(nano, begin=START + day * DAY, list_id=list_id, token_class="input"),
            match=match,
            per=UNITS[match.token_class],
        ),
        matches,
        st.one_of(prices, st.none()),
        st.integers(0, 3),
        st.sampled_from([DEFAULT_LIST, "special"]),
    ),
    max_size=25,
).map(lambda found: [replace(each, id=f"r{number}", version=number) for number, each in enumerate(found, 1)])
modifiers = st.lists(
    st.tuples(
        st.sampled_from([("tier", "priority"), ("batch", ""), ("cached", ""), ("zone", "fr"), ("tier", "standard")]),
        st.integers(0, 3_000_000),
    ),
    max_size=6,
).map(
    lambda found: [
        Modifier(
            list_id=DEFAULT_LIST,
            version=number,
            effective_from=START,
            kind=what[0],
            value=what[1],
            ppm=ppm,  # type: ignore[arg-type]  # one of the kinds
        )
        for number, (what, ppm) in enumerate(found, 1)
    ]
)
books = st.builds(PriceBook, rates, modifiers)


def full_book() -> PriceBook:
    """A book in which everything has a price, and some things one of their own."""
    own = [
        rate(7_000_000_001, 1, token_class="input"),
        rate(700_000_003, 2, token_class="cached", model_id="large"),
        rate(30_000_000_007, 3, token_class="output"),
        rate(31_000_000_007, 4, token_class="output", zone="fr"),
        rate(9_000_000_001, 5, token_class="input", model_id="large", service_tier="priority"),
        rate(1_000_000_001, 6, token_class="input", batch=True, zone="fr"),
        rate(500_000_003, 7, token_class="embeddings"),
    ]
    regional = Modifier(list_id=DEFAULT_LIST, version=1, effective_from=START, kind="zone", value="de", ppm=1_100_000)
    return PriceBook(own, [regional])


def use(token_class: str = "input", model_id: str = "large", **how: object) -> Use:
    return Use(model_id, token_class, **how)  # type: ignore[arg-type]  # what a test names
