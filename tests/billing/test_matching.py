"""Which rate counts: the most specific one in whatever order they were written, and what modifiers make of it."""

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import DEFAULT_LIST, Assignment, Modifier, PriceBook, Use
from galerne.billing.prices.book import matches as fits
from galerne.billing.prices.book import specificity
from tests.billing import books
from tests.billing.books import DAY, START, rate, use

CHAIN = ("special", DEFAULT_LIST)
uses = st.builds(
    Use,
    st.sampled_from(["large", "small", "other"]),
    st.sampled_from(["input", "cached", "output", "embeddings", "reasoning", "pages"]),
    st.sampled_from(["standard", "priority"]),
    st.sampled_from(books.ZONES),
    st.booleans(),
)


@given(books.rates, books.modifiers, uses, st.randoms(use_true_random=False), st.integers(0, 4))
def test_the_same_rate_counts_in_whatever_order_rates_were_read(found, modifiers, use, random, day) -> None:  # type: ignore[no-untyped-def]
    shuffled, at = found.copy(), START + day * DAY
    random.shuffle(shuffled)
    expected = PriceBook(found, modifiers).price(CHAIN, "EUR", use, at)
    assert PriceBook(shuffled, reversed(modifiers)).price(CHAIN, "EUR", use, at) == expected


@given(books.matches, books.matches, uses)
def test_two_different_matches_of_one_use_are_never_equally_specific(one, other, use) -> None:  # type: ignore[no-untyped-def]
    if one != other and fits(one, use) and fits(other, use):
        assert specificity(one, use) != specificity(other, use)


@given(books.books, uses, st.integers(0, 4))
def test_what_counts_matches_and_nothing_that_matches_is_more_specific(book, use, day) -> None:  # type: ignore[no-untyped-def]
    at = START + day * DAY
    price = book.price((DEFAULT_LIST,), "EUR", use, at)
    offered = [
        each
        for each in book.rates
        if each.list_id == DEFAULT_LIST and each.effective_from <= at and fits(each.match, use)
    ]
    newest = {each.match: each for each in sorted(offered, key=lambda each: (each.effective_from, each.version))}
    live = [each for each in newest.values() if each.nano is not None]
    if price is None:
        assert live == []
    else:
        assert price.rate in live
        assert all(specificity(each.match, use) <= specificity(price.rate.match, use) for each in live)


@pytest.mark.parametrize(
    ("how", "nano_per_million"),
    [
        ({}, 100),
        ({"service_tier": "priority"}, 175),
        ({"batch": True}, 50),
        ({"zone": "fr"}, 110),
        ({"zone": "elsewhere"}, 100),
        ({"token_class": "cached"}, 10),
        ({"token_class": "cached", "batch": True, "zone": "fr", "service_tier": "priority"}, Fraction("9.625")),
        ({"token_class": "output"}, 400),
        ({"token_class": "reasoning", "service_tier": "priority"}, 700),
        ({"token_class": "embeddings"}, 100),
        ({"model_id": "small"}, 20),
        ({"model_id": "small", "zone": "de"}, 15),
        ({"model_id": "small", "zone": "de", "batch": True}, Fraction("7.5")),
        ({"model_id": "small", "service_tier": "priority"}, 30),
        ({"model_id": "small", "service_tier": "priority", "zone": "de"}, 30),
    ],
)
def test_golden_prices(how: dict[str, object], nano_per_million: int | Fraction) -> None:
    book = PriceBook(
        [
            rate(100, 1, token_class="input"),
            rate(400, 2, token_class="output"),
            rate(20, 3, token_class="input", model_id="small"),
            rate(15, 4, token_class="input", model_id="small", zone="de"),
            rate(30, 5, token_class="input", model_id="small", service_tier="priority"),
        ],
        [Modifier(list_id=DEFAULT_LIST, version=1, effective_from=START, kind="zone", value="fr", ppm=1_100_000)],
    )
    price = book.price((DEFAULT_LIST,), "EUR", use(**how), START)  # type: ignore[arg-type]  # what the table names
    assert price is not None
    assert price.nano * 1_000_000 == nano_per_million


@pytest.mark.parametrize(
    ("token_class", "quantity", "nano"),
    [("pages", 1, 3), ("audio_seconds", 3600, 3000), ("stored_mib_hours", 1024 * 730, 3000), ("replica_seconds", 6, 5)],
)
def test_other_classes_have_units_of_their_own(token_class: str, quantity: int, nano: int) -> None:
    price = PriceBook([rate(3000, token_class=token_class)]).price((DEFAULT_LIST,), "EUR", use(token_class), START)
    assert price is not None
    assert price.nano * quantity == nano


def test_an_own_list_comes_before_a_plans_and_that_before_the_default() -> None:
    def given_list(number: int, scope: str, subject: str, list_id: str | None, days: int) -> Assignment:
        begin = START + days * DAY
        return Assignment(id=str(number), scope=scope, subject=subject, list_id=list_id, effective_from=begin)  # type: ignore[arg-type]  # one of two

    book = PriceBook(
        [
            rate(nano, nano, list_id=name, token_class="input")
            for nano, name in enumerate(("own", "team", DEFAULT_LIST), 1)
        ],
        (),
        [
            given_list(1, "plan", "team", "team", 1),
            given_list(2, "organisation", "org", "own", 2),
            given_list(3, "organisation", "org", None, 3),
        ],
    )
    begins = [START + days * DAY for days in range(4)]
    assert [book.chain("org", "team", at) for at in begins] == [
        ("default",),
        ("team", "default"),
        ("own", "team", "default"),
        ("team", "default"),
    ]
    prices = [book.price(book.chain("org", "team", at), "EUR", use(), at) for at in begins]
    assert [price.rate.nano for price in prices if price] == [3, 2, 1, 2]
    assert book.price(book.chain("org", "free", begins[2]), "USD", use(), begins[2]) is None


def test_a_withdrawn_rate_gives_way_to_the_next_one() -> None:
    book = PriceBook(
        [
            rate(1, 1, token_class="input"),
            rate(2, 2, token_class="input", model_id="large"),
            rate(None, 3, START + DAY, token_class="input", model_id="large"),
        ]
    )
    prices = [book.price((DEFAULT_LIST,), "EUR", use(), START + days * timedelta(days=1)) for days in (-1, 0, 1)]
    assert [price and price.rate.nano for price in prices] == [None, 2, 1]
