"""Rating that sums as it goes comes to what rating and summing come to, however its events write their times."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import PriceBook, Rater, UsedTokens, buckets_of
from galerne.billing.rating.rater import BucketKey, Sum, billable
from galerne.billing.rating.totals import AS_TEXT, AS_TIMES, Times, Totals, rate_totals
from galerne.kernel import utc_text
from tests.billing.books import CUSTOMER, START, TIERS, ZONES, books, full_book

PERIOD = "2026-11"
tokens = st.one_of(st.integers(0, 10**7), st.integers(0, 2**40))
events = st.lists(
    st.builds(
        UsedTokens,
        st.uuids().map(lambda name: name.hex),
        st.integers(0, 5 * 86_400).map(lambda seconds: START + timedelta(seconds=seconds)),
        st.sampled_from([None, "w"]),
        st.sampled_from(["k1", "k2"]),
        st.just("org"),
        st.sampled_from(["large", "small"]),
        st.sampled_from(["chat.completions", "completions", "embeddings"]),
        st.sampled_from(TIERS),
        st.sampled_from(ZONES),
        tokens,
        tokens,
        tokens,
    ),
    max_size=30,
    unique_by=lambda event: event.event_id,
)


def rater(book: PriceBook) -> Rater:
    return Rater(book, lambda _organisation_id, _at: CUSTOMER, [START + timedelta(hours=30, minutes=20)])


def summed(totals: Totals) -> dict[BucketKey, Sum]:
    currencies = dict(totals.sums.lines)
    found: dict[BucketKey, Sum] = {}
    for (workspace_id, key_id, organisation_id), period, hour, line, *amounts in totals.sums.sums:
        assert period == PERIOD
        assert (workspace_id, key_id, organisation_id) in totals.sums.whose
        key = BucketKey(organisation_id, workspace_id, key_id, hour, currencies[line], line)
        found[key] = Sum(*map(sum, zip(found.get(key, Sum(0, 0, 0)), amounts, strict=True)))
    return found


@pytest.mark.parametrize("times", [AS_TIMES, AS_TEXT])
@given(book=st.one_of(books, st.just(full_book())), used=events)
def test_totals_are_those_of_rating_each_event(times: Times, book: PriceBook, used: list[UsedTokens]) -> None:
    rating = billable(rater(book).rate(used), used)
    written = [each if times is AS_TIMES else (each[0], utc_text(each[1]), *each[2:]) for each in used]
    totals = rate_totals(rater(book), written, lambda _at: PERIOD, times)
    assert summed(totals) == buckets_of(rating.usage)
    currency_of = {each.event_id: each.currency for each in rating.usage}
    for event, (nano, currency, hour) in zip(used, totals.costs, strict=True):
        assert (nano, currency) == (rating.nano_of.get(event.event_id), currency_of.get(event.event_id))
        assert hour.begin <= event.occurred_at < hour.begin + timedelta(hours=1)


def test_an_hour_is_late_when_it_is_billed_in_another_month() -> None:
    def event(at: datetime) -> UsedTokens:
        return UsedTokens(f"{at:%d}", at, None, "k", "org", "large", "chat.completions", "standard", "", 1, 0, 0)

    used = [event(START - timedelta(days=1)), event(START)]
    totals = rate_totals(rater(full_book()), used, lambda _at: PERIOD)
    assert [hour.is_late for _, _, hour in totals.costs] == [True, False]
