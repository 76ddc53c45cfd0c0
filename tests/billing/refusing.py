"""Billing's routes over a month that was billed, the table's way of asking them, and a fingerprint of all books."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import httpx2
from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.control_plane import ROUTERS
from galerne.apps.refusals import install_refusals
from galerne.billing import NewRates, Plan, set_rates
from galerne.billing.contracts import ContractTerms, draft_contract
from galerne.billing.invoices import Crediting, TopUp, draft_credit_note, draft_top_up, finalise_checked, void_invoice
from galerne.billing.payments import NewPayment, NewRefund, record_payment, refund_payment
from galerne.billing.prices.pricing import HIGHEST_NANO_PER_MILLION
from galerne.billing.subscriptions import Fee, Offer, publish_plan
from galerne.governance import ROLE_PERMISSIONS, SYSTEM, Actor, Role
from galerne.kernel import GalerneError, Table
from galerne.ledger import AccountKind, Grant, customer_account, grant_credit
from galerne.models import ExternalModel, add_external
from tests.billing.invoices.customers import NOVEMBER, House, fine
from tests.journal.serving import Server

MILLION = 1_000_000
TABLES = sorted(Table.metadata.tables.keys() - {"rating_state"})  # whose row is the lock of who rates, and counts that


@dataclass(frozen=True)
class Row:
    """What is asked, and how it is refused: status, code, and words that say what and where."""

    name: str
    path: str
    body: dict[str, Any]
    code: str
    says: str
    status: int = 400
    method: str = "POST"
    by: str = "operator"


@dataclass
class Books:
    """The house after its first month, with the ids of what the table asks about."""

    house: House
    client: httpx2.AsyncClient
    server: Server
    names: dict[str, str] = field(default_factory=dict[str, str])

    async def fingerprint(self) -> dict[str, str]:
        """Of each table how many rows it has, and a hash of what they say."""
        found: dict[str, str] = {}
        async with self.house.database.reading() as session:
            for name in TABLES:
                rows = sorted(repr(tuple(row)) for row in await session.execute(text(f"SELECT * FROM {name}")))
                found[name] = f"{len(rows)} {hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]}"
        return found

    async def asked(self, row: Row) -> str:
        """What is wrong with how it was refused; nothing if nothing."""
        self.server.actor = SYSTEM if row.by == "operator" else self.customer
        body = json.loads(_named(json.dumps(row.body), self.names))
        answer = await self.client.request(row.method, _named(row.path, self.names), json=body)
        if answer.status_code != row.status:
            return f"{row.name}: {answer.status_code} {answer.text[:200]}"
        error = answer.json()["error"]
        if error["code"] != row.code or row.says not in f"{error['message']} ({error['param']})":
            return f"{row.name}: {error}"
        return ""

    async def refused(self, name: str, work: "Work", kind: type[GalerneError], code: str, says: str) -> str:
        """The same of a service."""
        try:
            async with self.house.database.transaction() as session:
                await work(self, session)
        except GalerneError as error:
            if isinstance(error, kind) and error.code == code and says in f"{error.message} ({error.param})":
                return ""
            return f"{name}: {error!r} {error.code} {error.param}"
        except Exception as error:  # noqa: BLE001  # a defect is a row that failed; the others are asked all the same
            return f"{name}: {error!r}"
        return f"{name}: was done"

    @property
    def customer_of_operator(self) -> Actor:
        """The operator, who acts for the customer."""
        return replace(SYSTEM, organisation_id=self.names["customer"])

    @property
    def prepaid(self) -> str:
        """The customer's account of credit."""
        return customer_account(AccountKind.PREPAID, self.names["customer"], "EUR").id

    @property
    def customer(self) -> Actor:
        permissions = ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN]
        return replace(SYSTEM, organisation_id=self.names["customer"], permissions=permissions)


Work = Callable[[Books, AsyncSession], Awaitable[Any]]


async def books_in(house: House) -> Books:
    """Everything that can be asked for wrongly, once rightly."""
    routers = APIRouter()
    for each in ROUTERS:
        routers.include_router(each)
    server = Server(routers, house.database, house.clock, SYSTEM)
    install_refusals(server.app)
    transport = httpx2.ASGITransport(server.app, raise_app_exceptions=False)
    books = Books(house, httpx2.AsyncClient(transport=transport, base_url="http://galerne"), server)
    customer = books.names["customer"] = await house.customer("customer")
    books.names["other"] = await house.customer("other")
    (books.names["event"], *_) = await house.use(customer, (100 * MILLION, 0, MILLION))
    await house.use(books.names["other"], (MILLION, 0, MILLION))
    async with house.database.transaction() as session:
        await add_external(session, SYSTEM, ExternalModel(name="dear", url="http://127.0.0.1:9/v1"), house.clock)
        dear: dict[str, Any] = {
            f"{name}_nano_per_million": HIGHEST_NANO_PER_MILLION for name in ("input", "cached", "output")
        }
        await set_rates(session, SYSTEM, "dear", NewRates(currency="EUR", **dear), house.ids, house.clock)
    (books.names["dear"],) = await house.use(customer, (1, 0, 0), model="dear")
    await house.close()
    for name in ("customer", "other"):
        (invoice,) = await house.invoices(books.names[name])
        books.names[f"invoice_of_{name}"] = invoice.id
    await _money(books)
    await _terms(books)
    books.names["now"] = house.clock.current.isoformat()
    return books


async def _money(books: Books) -> None:
    house, names = books.house, books.names
    customer, parts = names["customer"], (house.ids, house.clock)
    for name, invoice in (("payment", ()), ("paid", (names["invoice_of_customer"],))):
        new = NewPayment(
            organisation_id=customer,
            method="other",
            reference=f"R-{name}",
            currency="EUR",
            amount_minor=5000,
            received_on=date(2026, 11, 2),
            invoice_ids=invoice,
            request_id=f"k-{name}",
        )
        async with house.database.transaction() as session:
            names[name] = (await record_payment(session, SYSTEM, new, *parts)).id
    async with house.database.transaction() as session:
        refund = NewRefund(request_id="k-refund", amount_minor=1000, reason="goodwill")
        await refund_payment(session, SYSTEM, names["payment"], refund, *parts)
        top_up = TopUp(organisation_id=customer, amount_nano=10**10, currency="EUR", request_id="k-top-up")
        draft = await draft_top_up(session, SYSTEM, top_up, *parts)
        names["draft"] = draft.id
        voided = replace(top_up, request_id="k-void")
        names["void"] = (await draft_top_up(session, SYSTEM, voided, *parts)).id
    await finalise_checked(house.database, SYSTEM, names["void"], fine, house.clock)
    asked = Crediting(invoice_id=names["invoice_of_other"], reason="why", request_id="k-note", net_minor=10)
    async with house.database.transaction() as session:
        await void_invoice(session, SYSTEM, names["void"], "wrong", house.clock)
        names["note"] = (await draft_credit_note(session, SYSTEM, asked, *parts)).id
    await finalise_checked(house.database, SYSTEM, names["note"], fine, house.clock)
    async with house.database.transaction() as session:
        grant = Grant(id="g", amount_nano=10**9, currency="EUR", reason="why")
        await grant_credit(session, replace(SYSTEM, organisation_id=customer), grant, house.clock)
    await house.settle(customer, {"charge": 1000})
    async with house.database.reading() as session:
        holds = text("SELECT id FROM ledger_holds WHERE debit_account_id = :id ORDER BY at DESC")
        names["hold"] = (await session.execute(holds, {"id": books.prepaid})).scalars().all()[0]


async def _terms(books: Books) -> None:
    house, names = books.house, books.names
    terms = ContractTerms(currency="EUR", start=NOVEMBER, months=12)
    names["contract"] = await house.contract(names["customer"], terms)
    async with house.database.transaction() as session:
        actor = replace(SYSTEM, organisation_id=names["customer"])
        again = replace(terms, start=NOVEMBER + timedelta(days=61))
        second = await draft_contract(session, actor, "Second", again, house.ids, house.clock)
        names["second"], names["sha256"] = second.contract_id, second.sha256
        plan = Plan(id="dollars", weight=10, tier="standard", description="in dollars alone")
        offer = Offer(fees=(Fee(interval="month", currency="USD", nano=10**10),))
        await publish_plan(session, SYSTEM, plan, offer, house.clock)
    server = books.server
    server.actor = books.customer
    order = {"plan": "team", "seats": 3, "request_id": "k-order", "trial": False}
    answer = await books.client.post("/v1/admin/subscription", json=order)
    assert answer.status_code == 201, answer.text
    asked = {"what": "seats", "seats": 4, "request_id": "k-seats"}
    answer = await books.client.post("/v1/admin/subscription/changes", json=asked)
    assert answer.status_code == 200, answer.text


def _named(text_: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text_ = text_.replace(f"<{name}>", value)
    return text_
