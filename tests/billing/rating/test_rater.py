"""Rating: the same as the gateway charges, the same in any order, nothing lost, sums that add up."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import (
    Customer,
    LineKey,
    ModelPrices,
    PriceBook,
    RatedUsage,
    Rater,
    UsedTokens,
    buckets_of,
    cost_lines,
    token_prices,
)
from galerne.billing.prices.pricing import cost_nano
from galerne.billing.prices.volume_tiers import amount_nano, tier_quantities
from galerne.billing.rating.rater import added, tier_prices
from tests.billing import books
from tests.billing.books import CUSTOMER, START, TIERS, ZONES, full_book, rate

COUNTS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (7, 3, 5), (1999, 501, 777), (10**6, 10**6, 10**6)]
tokens = st.integers(0, 10**7)
drawn = st.builds(
    lambda minutes, key, model, endpoint, tier, zone, counts: UsedTokens(
        "", START + timedelta(minutes=minutes), None, key, "org", model, endpoint, tier, zone, *counts
    ),
    st.integers(0, 5 * 1440),
    st.sampled_from(["k1", "k2"]),
    st.sampled_from(["large", "small"]),
    st.sampled_from(["chat.completions", "embeddings"]),
    st.sampled_from(TIERS),
    st.sampled_from(ZONES),
    st.tuples(tokens, tokens, tokens),
)
streams = st.lists(drawn, max_size=20).map(
    lambda found: [each._replace(event_id=f"{number:032x}") for number, each in enumerate(found)]
)


def rated(book: PriceBook, events: Any) -> Any:
    return Rater(book, lambda _organisation, _at: CUSTOMER).rate(events)


def as_set(usage: list[RatedUsage]) -> set[tuple[Any, ...]]:
    return {(each.event_id, each.line, each.quantity, each.nano, each.currency) for each in usage}


@pytest.mark.parametrize(
    ("endpoint", "model", "tier", "zone"),
    list(product(["chat.completions", "embeddings"], ["large", "small"], TIERS, ZONES)),
)
def test_what_the_gateway_charges_is_what_is_rated(endpoint: str, model: str, tier: str, zone: str) -> None:
    book = full_book()
    charged = ModelPrices(book, CUSTOMER, model).rates(endpoint, tier, zone, START)
    assert charged is not None
    for counts in COUNTS:
        event = UsedTokens("e", START, None, "k", "org", model, endpoint, tier, zone, *counts)
        found = rated(book, [event])
        assert found.nano_of["e"] == cost_nano(charged, *counts) == sum(each.nano for each in found.usage)


@given(books.books, drawn)
def test_the_gateway_and_rating_agree_on_any_book(book: PriceBook, event: UsedTokens) -> None:
    prices = ModelPrices(book, CUSTOMER, event.model_id)
    charged = prices.rates(event.endpoint, event.tier, event.zone, event.occurred_at)
    found = rated(book, [event])
    assert (charged is None) == bool(found.unmatched)
    if charged is not None:
        cost = cost_nano(charged, *event[9:])
        assert found.nano_of[event.event_id] == cost == sum(each.nano for each in found.usage)
        most = prices.most_nano(
            event.input_tokens + event.cached_tokens, event.output_tokens, event.tier, event.occurred_at
        )
        assert cost <= most


@given(books.books, drawn)
def test_the_lines_that_an_answer_tells_are_those_that_rating_makes(book: PriceBook, event: UsedTokens) -> None:
    how = (event.endpoint, event.tier, event.zone)
    found = token_prices(book, CUSTOMER, event.model_id, how, event.occurred_at)
    if found is not None:
        told = cost_lines(found, (event.input_tokens, event.cached_tokens, event.output_tokens))
        assert [
            (each.token_class, each.quantity, each.rate_id, each.amount_nano) for each in told if each.quantity
        ] == [(each.line.token_class, each.quantity, each.rate_id, each.nano) for each in rated(book, [event]).usage]


@given(books.books, streams, st.randoms(use_true_random=False))
def test_permuted_and_split_streams_are_rated_the_same(book: PriceBook, events: Any, random: Any) -> None:
    shuffled = events.copy()
    random.shuffle(shuffled)
    cut = random.randint(0, len(events))
    rater = Rater(book, lambda _organisation, _at: CUSTOMER)
    parts = [rater.rate(shuffled[:cut]), rater.rate(shuffled[cut:])]
    whole = rated(book, events)
    assert as_set(parts[0].usage + parts[1].usage) == as_set(whole.usage)
    assert parts[0].nano_of | parts[1].nano_of == whole.nano_of


@given(books.books, streams)
def test_no_event_is_lost_and_buckets_add_up_to_their_events(book: PriceBook, events: Any) -> None:
    found = rated(book, events)
    assert sorted([*found.nano_of, *(each.event_id for each in found.unmatched)]) == sorted(e.event_id for e in events)
    whole = added(buckets_of(found.usage).values())
    assert whole.nano == sum(found.nano_of.values())
    assert whole.quantity == sum(each.quantity for each in found.usage)
    assert whole.requests == len(found.usage)


@given(st.tuples(tokens, tokens, tokens))
def test_no_class_is_off_by_more_than_a_nano_unit(counts: tuple[int, int, int]) -> None:
    book = full_book()
    event = UsedTokens("e", START, None, "k", "org", "large", "chat.completions", "priority", "de", *counts)
    for each in rated(book, [event]).usage:
        price = book.price(
            ("default",), "EUR", books.use(each.line.token_class, service_tier="priority", zone="de"), START
        )
        assert price is not None
        assert abs(each.nano - each.quantity * price.nano) <= 1


def test_a_line_says_by_what_it_was_multiplied_and_recomputes() -> None:
    book = full_book()
    event = UsedTokens("e", START, None, "k", "org", "small", "chat.completions", "priority", "de", 10**6, 0, 0)
    (usage,) = rated(book, [event]).usage
    assert usage.line == LineKey("small", "input", "priority", "de", False, "r1*77/40", 0)
    assert usage.rate_id == "r1*77/40"
    _, prices, starts = tier_prices({each.id: each for each in book.rates}, usage.rate_id)
    ((part,),) = tier_quantities(starts, None, [usage.quantity])
    assert (part, amount_nano(part, prices[0])) == (10**6, usage.nano) == (10**6, 13_475_000_002)


def test_a_price_that_changes_within_an_hour_counts_from_its_own_moment() -> None:
    change = START + timedelta(minutes=30)
    book = PriceBook(
        [
            *(rate(10**6, n, token_class=each) for n, each in enumerate(("input", "output"), 1)),
            rate(3 * 10**6, 3, change, token_class="input"),
        ]
    )
    moments = [START, change - timedelta(microseconds=1), change, change + timedelta(hours=5), START]
    events = [
        UsedTokens(str(n), at, None, "k", "org", "large", "chat.completions", "standard", "", 1, 0, 0)
        for n, at in enumerate(moments)
    ]
    assert list(rated(book, events).nano_of.values()) == [1, 1, 3, 3, 1]
    prices = ModelPrices(book, CUSTOMER, "large")
    asked = [prices.rates("chat.completions", "standard", "", at) for at in moments]
    assert [each and cost_nano(each, 1, 0, 0) for each in asked] == [1, 1, 3, 3, 1]


def test_customers_who_change_plan_are_rated_by_each_in_its_time() -> None:
    book = PriceBook([rate(10**6, 1, token_class="input"), rate(10**6, 2, token_class="output")])
    change = START + timedelta(days=1)
    rater = Rater(book, lambda _, at: Customer("org", "free", "EUR" if at < change else "USD"), [change])
    events = [
        UsedTokens(str(n), START + n * timedelta(hours=13), None, "k", "org", "m", "c", "standard", "", 1, 0, 0)
        for n in range(4)
    ]
    found = rater.rate(events)
    assert sorted(found.nano_of) == ["0", "1"]
    assert [each.event_id for each in found.unmatched] == ["2", "3"]
