"""What cannot be, asked of billing's routes and services: refused with a typed error, and the books as they were."""

from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from galerne.billing import Counts, NewRates, close_period, correct_usage, rate_batch, set_rates
from galerne.billing.contracts import ContractTerms, Version, amend_contract
from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Conflict, Database, GalerneError, run_in_session
from galerne.ledger import (
    AccountKind,
    Grant,
    InsufficientFunds,
    Posting,
    Settlement,
    customer_account,
    grant_credit,
    house_account,
    open_account_script,
    post_script,
    settle_script,
)
from tests.billing.invoices.customers import NOVEMBER, house_in
from tests.billing.refusing import Books, Row, Work, books_in

PRICES, CHANGES, RATING = "/v1/admin/prices/large", "/v1/admin/prices/changes", "/v1/admin/rating"
INVOICES, PAYMENTS, CREDITS = "/v1/admin/invoices", "/v1/admin/payments", "/v1/admin/credits"
INVALID = "invalid_request"
SAME_KEY = "idempotency_conflict"
HOME = {"line1": "1 place Royale", "city": "Nantes", "postcode": "44000", "country": "FR"}
PRICE = {"input": "1", "cached": "1", "output": "1", "currency": "EUR"}
RATE = {"token_class": "input", "currency": "EUR", "price": "1", "model": "large"}
PAYMENT = {
    "organisation_id": "<customer>",
    "reference": "R-payment",
    "currency": "EUR",
    "amount": "50.00",
    "received_on": "2026-11-02",
    "request_id": "k-payment",
}
GRANT = {"id": "g", "organisation": "<customer>", "amount": "1", "currency": "EUR", "reason": "why"}
TOP_UP = {"organization_id": "<customer>", "amount": "10", "currency": "EUR", "request_id": "k-top-up"}
NOTE = {"reason": "why", "request_id": "k-new"}
REFUND = {"request_id": "k-new", "amount": "1.00", "reason": "why"}
CORRECTION = {"event": "<event>", "reason": "why", "input_tokens": 1, "cached_tokens": 0, "output_tokens": 0}
BUDGET = {"scope": "organisation", "scope_id": "<customer>", "amount": "10", "currency": "EUR"}
ORDER = {"plan": "team", "seats": 3, "request_id": "k-order", "trial": False}
PROFILE = {"name": "X", "address": HOME, "is_business": True, "issuer_id": "fr"}
SELLER = {"name": "Galerne", "address": HOME, "prefix": "DE"}
LEITWEG = {"value": "04011000-1234512345-07", "scheme": "0204"}
DEAR = {"token_class": "pages", "currency": "EUR", "price": "1000000"}


def price(name: str, says: str, **changes: Any) -> Row:
    return Row(f"a price {name}", PRICES, PRICE | changes, INVALID, says, method="PUT")


def change(name: str, says: str, **body: Any) -> Row:
    return Row(name, CHANGES, body, INVALID, says)


PRICES_THAT_CANNOT_BE = [
    price("below nothing", "(input)", input="-0.5"),
    price("that is no number", "(output)", output="NaN"),
    price("that is infinite", "(output)", output="inf"),
    price("with an exponent", "(cached)", cached="1e3"),
    price("finer than a nano-unit", "at most 9 digits", cached="0.0000000001"),
    price("above a million", "at most 1000000", input="1000000.000000001"),
    Row("a price as a float", PRICES, PRICE | {"input": 0.5}, "invalid_value", "input", method="PUT"),
    price("in no currency", "(currency)", currency="euro"),
    price("in the past", "in the past", effective_from="2026-10-01T00:00:00Z"),
    Row("a price of an unknown model", "/v1/admin/prices/none", PRICE, "model_not_found", "none", 404, "PUT"),
    change("two prices from one time on", "same time on", rates=[RATE, RATE | {"price": "2"}]),
    change("nothing at all", "(rates)", rates=[]),
    change("steps that overlap", "(steps)", rates=[RATE | {"volume": "graduated", "steps": [
        {"above": 10, "price": "1"}, {"above": 10, "price": "2"}]}]),
    change("a step that begins at nothing", "(steps)", rates=[RATE | {"volume": "volume", "steps": [
        {"above": 0, "price": "1"}]}]),
    change("a step below nothing", "cannot be negative", rates=[RATE | {"volume": "volume", "steps": [
        {"above": 5, "price": "-1"}]}]),
    change("a factor below nothing", "(factor)", modifiers=[{"kind": "batch", "factor": "-1"}]),
    change("a factor above ten", "(factor)", modifiers=[{"kind": "batch", "factor": "10.000001"}]),
    change("factors that make the dearest price absurd", "(factor)", rates=[RATE | {"price": "1000000"}], modifiers=[
        {"kind": kind, "value": value, "factor": "10"}
        for kind, value in (("batch", ""), ("cached", ""), ("zone", "fr"), ("tier", "priority"))]),
    Row("a list that is not", CHANGES, {"price_list": "none", "rates": [RATE]}, "price_list_not_found", "none", 404),
    Row("a re-rating by prices to come", f"{RATING}/rerate", {"prices": {"rates": [RATE]}}, INVALID, "effective_from"),
    Row("a re-rating that nobody saw", f"{RATING}/rerate", {"digest": "0" * 64, "prices": {
        "rates": [RATE | {"effective_from": "2026-10-01T00:00:00Z"}]}}, "rerating_changed", "look at it again", 409),
]  # fmt: skip

USAGE_THAT_CANNOT_BE = [
    Row("a correction below nothing", f"{RATING}/corrections", CORRECTION | {"input_tokens": -1}, "invalid_value",
        "input_tokens"),
    Row("a correction beyond 2^40 tokens", f"{RATING}/corrections", CORRECTION | {"input_tokens": 2**40 + 1},
        "invalid_value", "input_tokens"),
    Row("a correction that costs more than an account holds", f"{RATING}/corrections",
        CORRECTION | {"event": "<dear>", "input_tokens": 2**40}, INVALID, "(tokens)"),
    Row("half a correction", f"{RATING}/corrections", {"event": "<event>", "reason": "why", "input_tokens": 1}, INVALID,
        "all three"),
    Row("a correction without a reason", f"{RATING}/corrections", CORRECTION | {"reason": " "}, INVALID, "(reason)"),
    Row("a correction of nothing", f"{RATING}/corrections", CORRECTION | {"event": "none"}, "usage_not_found", "none",
        404),
]  # fmt: skip

INVOICES_THAT_CANNOT_BE = [
    Row("a credit note above the invoice", f"{INVOICES}/<invoice_of_customer>/credit-notes", NOTE | {"net": "9999.00"},
        "credit_above_invoice", "more than was invoiced", 409),
    Row("a credit note over nothing", f"{INVOICES}/<invoice_of_customer>/credit-notes", NOTE | {"net": "0"}, INVALID,
        "(amount)"),
    Row("a credit note finer than a cent", f"{INVOICES}/<invoice_of_customer>/credit-notes", NOTE | {"net": "1.001"},
        INVALID, "(net)"),
    Row("a credit note on a credit note", f"{INVOICES}/<note>/credit-notes", NOTE, "invoice_state", "credit note", 409),
    Row("a credit note on what is void", f"{INVOICES}/<void>/credit-notes", NOTE, "invoice_state", "void", 409),
    Row("a credit note on a draft", f"{INVOICES}/<draft>/credit-notes", NOTE, "invoice_state", "draft", 409),
    Row("the whole of what is credited in part", f"{INVOICES}/<invoice_of_other>/credit-notes", NOTE, "invoice_state",
        "credited already", 409),
    Row("a credit note's key again", f"{INVOICES}/<invoice_of_other>/credit-notes",
        {"reason": "why", "request_id": "k-note", "net": "0.11"}, SAME_KEY, "(request_id)", 409),
    Row("a credit note's key on another invoice", f"{INVOICES}/<invoice_of_customer>/credit-notes",
        {"reason": "why", "request_id": "k-top-up", "net": "0.10"}, SAME_KEY, "(request_id)", 409),
    Row("voiding what is paid", f"{INVOICES}/<invoice_of_customer>/void", {"reason": "why"}, "invoice_state",
        "credit note", 409),
    Row("sending a draft", f"{INVOICES}/<draft>/sent", {}, "invoice_state", "draft", 409),
    Row("writing again what is not void", f"{INVOICES}/<note>/reissue", {}, "invoice_state", "void", 409),
    Row("a top-up's key again", f"{INVOICES}/top-ups", TOP_UP | {"amount": "11"}, SAME_KEY, "(request_id)", 409),
    Row("a top-up's key in another currency", f"{INVOICES}/top-ups", TOP_UP | {"currency": "USD"}, SAME_KEY,
        "(request_id)", 409),
    Row("a top-up below nothing", f"{INVOICES}/top-ups", TOP_UP | {"amount": "-1", "request_id": "k"}, INVALID,
        "(amount)"),
    Row("a top-up in no currency", f"{INVOICES}/top-ups", TOP_UP | {"currency": "euro", "request_id": "k"}, INVALID,
        "(currency)"),
    Row("a top-up with too long a key", f"{INVOICES}/top-ups", TOP_UP | {"request_id": "k" * 150}, INVALID,
        "(request_id)"),
    Row("a top-up of nobody", f"{INVOICES}/top-ups", TOP_UP | {"organization_id": "none", "request_id": "k"},
        "billing_profile_missing", "none", 404),
    Row("an issuer's other prefix", "/v1/admin/invoice-issuers/fr", SELLER, INVALID, "(prefix)", method="PUT"),
    Row("another issuer's prefix", "/v1/admin/invoice-issuers/de", SELLER | {"prefix": "FR"}, INVALID, "(prefix)",
        method="PUT"),
    Row("a prefix that another's credit notes have", "/v1/admin/invoice-issuers/de", SELLER | {"prefix": "FR-C"},
        INVALID, "(prefix)", method="PUT"),
    Row("an address in no country", "/v1/admin/billing-profiles/<customer>",
        PROFILE | {"address": HOME | {"country": "France"}}, INVALID, "(address.country)", method="PUT"),
    Row("a Leitweg-ID with a slip in it", "/v1/admin/billing-profiles/<customer>",
        PROFILE | {"electronic_address": LEITWEG}, INVALID, "(electronic_address)", method="PUT"),
    Row("a buyer reference that is no Leitweg-ID", "/v1/admin/billing-profiles/<customer>",
        PROFILE | {"electronic_address": LEITWEG | {"value": "04011000-1234512345-06"}, "buyer_reference": "PO 7"},
        INVALID, "(buyer_reference)", method="PUT"),
    Row("invoices of nobody", "/v1/admin/billing-profiles/none", PROFILE, "not_found", "none", 404, "PUT"),
]  # fmt: skip

PAYMENTS_THAT_CANNOT_BE = [
    Row("a payment's key again", PAYMENTS, PAYMENT | {"amount": "51.00"}, SAME_KEY, "other content", 409),
    Row("a payment's reference again", PAYMENTS, PAYMENT | {"request_id": "k-new"}, SAME_KEY, "other content", 409),
    Row("a payment in another currency", PAYMENTS, PAYMENT | {
        "currency": "USD", "reference": "n", "request_id": "n", "invoice_ids": ["<invoice_of_customer>"]},
        "currency_changed", "not converted"),
    Row("a payment in no currency", PAYMENTS, PAYMENT | {"currency": "euro", "reference": "n", "request_id": "n"},
        INVALID, "(currency)"),
    Row("a payment of nothing", PAYMENTS, PAYMENT | {"amount": "0", "reference": "n"}, INVALID, "(amount)"),
    Row("a payment below nothing", PAYMENTS, PAYMENT | {"amount": "-1", "reference": "n"}, INVALID, "(amount)"),
    Row("a payment finer than a cent", PAYMENTS, PAYMENT | {"amount": "1.001", "reference": "n"}, INVALID, "(amount)"),
    Row("a payment of another's invoice", PAYMENTS, PAYMENT | {
        "reference": "n", "request_id": "n", "invoice_ids": ["<invoice_of_other>"]}, "invoice_not_found",
        "(invoice_ids)", 404),
    Row("a payment by nobody", PAYMENTS, PAYMENT | {"organisation_id": "none", "reference": "n", "request_id": "n"},
        "not_found", "none", 404),
    Row("a refund above the capture", f"{PAYMENTS}/<payment>/refunds", REFUND | {"amount": "40.01"},
        "refund_above_capture", "(amount)", 409),
    Row("a refund's key again", f"{PAYMENTS}/<payment>/refunds", REFUND | {"request_id": "k-refund", "amount": "11.00"},
        SAME_KEY, "request id", 409),
    Row("a refund below nothing", f"{PAYMENTS}/<payment>/refunds", REFUND | {"amount": "-1"}, INVALID, "(amount)"),
    Row("a refund of what was never paid", f"{PAYMENTS}/none/refunds", REFUND, "payment_not_found", "payment", 404),
    Row("a refund of a refund", f"{PAYMENTS}/k-refund/refunds", REFUND, "payment_not_found", "payment", 404),
    Row("paying with what is spent", f"{PAYMENTS}/<paid>/allocations", {"invoice_ids": ["<invoice_of_customer>"]},
        "nothing_free", "free", 409),
    Row("a grant's id again", CREDITS, GRANT | {"amount": "2"}, "conflict", "other content", 409),
    Row("a grant in no currency", CREDITS, GRANT | {"id": "n", "currency": "euro"}, INVALID, "(currency)"),
    Row("a grant of nothing", CREDITS, GRANT | {"id": "n", "amount": "0"}, INVALID, "(amount)"),
    Row("more given back than was charged", f"{CREDITS}/corrections", {"id": "n", "organisation": "<customer>",
        "charge": "charge", "amount": "1", "reason": "why"}, "correction_too_large", "0.000001", 409),
    Row("a charge of another", f"{CREDITS}/corrections", {"id": "n", "organisation": "<other>", "charge": "charge",
        "amount": "0.000000001", "reason": "why"}, "charge_not_found", "charge", 404),
]  # fmt: skip

TERMS_THAT_CANNOT_BE = [
    Row("seats below nothing", "/v1/admin/subscription/changes", {"what": "seats", "seats": -1}, INVALID, "(seats)",
        by="customer"),
    Row("no seats", "/v1/admin/subscription/changes", {"what": "seats", "seats": 0}, INVALID, "(seats)", by="customer"),
    Row("seats of a wish's key again", "/v1/admin/subscription/changes",
        {"what": "seats", "seats": 5, "request_id": "k-seats"}, SAME_KEY, "(request_id)", 409, by="customer"),
    Row("an order's key again", "/v1/admin/subscription", ORDER | {"seats": 4}, SAME_KEY, "(request_id)", 409,
        by="customer"),
    Row("a second subscription", "/v1/admin/subscription", ORDER | {"request_id": "n"}, "subscription_exists", "change",
        409, by="customer"),
    Row("a plan in another currency", "/v1/admin/subscription/changes", {"what": "change", "plan": "dollars"}, INVALID,
        "(currency)", by="customer"),
    Row("a plan's fee below nothing", "/v1/admin/plans", {"plan": "n", "weight": 1, "tier": "standard",
        "description": "n", "fees": [{"interval": "month", "currency": "EUR", "amount": "-1"}]}, INVALID, "(fees)"),
    Row("another's budget", "/v1/admin/budgets", BUDGET | {"scope_id": "<other>"}, "not_found", "(scope_id)", 404,
        by="customer"),
    Row("a budget of nothing", "/v1/admin/budgets", BUDGET | {"amount": "0"}, INVALID, "(amount)", by="customer"),
    Row("a budget in no currency", "/v1/admin/budgets", BUDGET | {"currency": "E"}, INVALID, "(currency)",
        by="customer"),
    Row("a contract over the months of another", "/v1/admin/contracts/<second>/sign",
        {"version": 1, "sha256": "<sha256>", "signed_by": "Ada"}, "contract_overlaps", "another", 409, by="customer"),
    Row("a signature under other terms", "/v1/admin/contracts/<second>/sign",
        {"version": 1, "sha256": "0" * 64, "signed_by": "Ada"}, "terms_differ", "look at them", 409, by="customer"),
]  # fmt: skip

ROWS = [
    *PRICES_THAT_CANNOT_BE,
    *USAGE_THAT_CANNOT_BE,
    *INVOICES_THAT_CANNOT_BE,
    *PAYMENTS_THAT_CANNOT_BE,
    *TERMS_THAT_CANNOT_BE,
]


@pytest.fixture
async def books(database: Database) -> Books:
    return await books_in(await house_in(database))


@pytest.mark.slow_ok("a hundred requests, and after each of them all tables are read")
async def test_what_cannot_be_is_refused_and_no_row_of_the_books_changes(books: Books) -> None:
    before = await books.fingerprint()
    wrong: list[str] = []
    for row in ROWS:
        wrong.append(await books.asked(row))
        after = await books.fingerprint()
        wrong += [f"{row.name}: {name} has changed" for name in before if before[name] != after[name]]
        before = after
    found = "\n".join(each for each in wrong if each)
    assert not found, found
    assert max(Counter(row.name for row in ROWS).values()) == 1


def _prices(books: Books, session: Any) -> Awaitable[Any]:
    new = NewRates(currency="EUR", input_nano_per_million=-1, cached_nano_per_million=0, output_nano_per_million=0)
    return set_rates(session, SYSTEM, "large", new, books.house.ids, books.house.clock)


def _correct(counts: Counts) -> Work:
    return lambda books, session: correct_usage(session, SYSTEM, books.names["event"], counts, "why", books.house.clock)


def _close(period: str) -> Work:
    return lambda books, session: close_period(session, SYSTEM, period, books.house.clock)


def _close_billing(**order: Any) -> Work:
    return lambda books, _session: books.house.close(**order)


def _amend(**changes: Any) -> Work:
    def work(books: Books, session: Any) -> Awaitable[Any]:
        terms = replace(ContractTerms(currency="EUR", start=NOVEMBER, months=12), **changes)
        proposed = Version(NOVEMBER + timedelta(days=40), terms)
        return amend_contract(session, books.customer_of_operator, books.names["contract"], proposed, books.house.clock)

    return work


def _account(books: Books, session: Any) -> Awaitable[Any]:
    account = replace(customer_account(AccountKind.PREPAID, books.names["customer"], "EUR"), currency="USD")
    return run_in_session(session, open_account_script(account, books.house.clock.now()))


def _post(books: Books, session: Any) -> Awaitable[Any]:
    sides = (books.prepaid, house_account(AccountKind.REVENUE, "EUR").id)
    return run_in_session(session, post_script(Posting("n", *sides, 10**12, books.house.clock.now(), "why")))


def _capture(books: Books, session: Any) -> Awaitable[Any]:
    sides = (books.prepaid, house_account(AccountKind.REVENUE, "EUR").id)
    again = Settlement("charge", books.names["hold"], *sides, 1001, books.house.clock.now())
    return run_in_session(session, settle_script([again]))


def _funded(books: Books, session: Any) -> Awaitable[Any]:
    funding = house_account(AccountKind.CASH_CLEARING, "USD")
    grant = Grant(id="n", amount_nano=1, currency="EUR", reason="why", funding=funding)
    return grant_credit(session, books.customer_of_operator, grant, books.house.clock)


SERVICES: list[tuple[str, Work, type[GalerneError], str, str]] = [
    ("a price below nothing", _prices, BadRequest, INVALID, "(input)"),
    ("a correction below nothing", _correct(Counts(-1, 0, 0)), BadRequest, INVALID, "(tokens)"),
    ("a correction beyond 2^40 tokens", _correct(Counts(2**40 + 1, 0, 0)), BadRequest, INVALID, "(tokens)"),
    ("closing usage of what is no month", _close("2026-13"), BadRequest, INVALID, "(period)"),
    ("closing usage of a month to come", _close("2026-12"), Conflict, "period_open", "not begun"),
    ("closing what is no month", _close_billing(period="november"), BadRequest, INVALID, "(period)"),
    ("closing a month that has not ended", _close_billing(period="2026-11"), Conflict, "period_open", "2026-12-01"),
    (
        "closing a month until before it",
        _close_billing(period="2026-11", until=NOVEMBER),
        Conflict,
        "period_open",
        "2026-11",
    ),
    (
        "closing over usage without a price",
        _close_billing(period="2026-11", until=NOVEMBER + timedelta(hours=2)),
        Conflict,
        "unmatched_usage",
        "no price",
    ),
    ("a contract's other currency", _amend(currency="USD"), BadRequest, INVALID, "(currency)"),
    ("a contract's other beginning", _amend(start=NOVEMBER + timedelta(days=1)), BadRequest, INVALID, "(start)"),
    ("a contract's minimum below nothing", _amend(minimum_nano=-1), BadRequest, INVALID, "(minimum_nano)"),
    ("an account's other currency", _account, Conflict, "conflict", "other terms"),
    ("more than there is", _post, InsufficientFunds, "insufficient_funds", "prepaid"),
    ("a capture again with another amount", _capture, Conflict, "conflict", "charge"),
    ("a grant funded in another currency", _funded, BadRequest, INVALID, "(funding)"),
]


@pytest.mark.slow_ok("after each refusal all tables are read")
async def test_services_refuse_what_cannot_be_and_no_row_of_the_books_changes(books: Books) -> None:
    await books.house.use(books.names["customer"], (1, 0, 0), at=NOVEMBER, model="unpriced")
    async with books.house.database.transaction() as session:
        await rate_batch(session, books.house.clock)
    before = await books.fingerprint()
    wrong: list[str] = []
    for name, work, kind, code, says in SERVICES:
        wrong.append(await books.refused(name, work, kind, code, says))
        after = await books.fingerprint()
        wrong += [f"{name}: {table} has changed" for table in before if before[table] != after[table]]
        before = after
    found = "\n".join(each for each in wrong if each)
    assert not found, found
