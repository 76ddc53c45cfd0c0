"""An invoice's usage over HTTP: pages, the file, and to whom they are shown."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from galerne.billing.invoice_usage import invoice_usage_router
from galerne.governance import SYSTEM, Actor, ActorKind, Permission
from tests.billing.invoice_usage.houses import Installation, checked, said
from tests.billing.invoice_usage.test_making import DAYS
from tests.journal.serving import Server


class Customer:
    """A customer with an invoice, and the server to ask."""

    def __init__(self, served: Installation, organisation_id: str, invoice_id: str) -> None:
        self.served = served
        self.organisation_id = organisation_id
        self.path = f"/v1/invoices/{invoice_id}/usage"
        self.server = Server(invoice_usage_router, served.house.database, served.house.clock, self.actor())

    def actor(self, permissions: Iterable[Permission] = (Permission.BILLING_READ,), **other: Any) -> Actor:
        own: dict[str, Any] = {"organisation_id": self.organisation_id, "workspace_id": None} | other
        return Actor(ActorKind.API_KEY, "key", permissions=frozenset(permissions), **own)

    async def status_for(self, actor: Actor, **query: str) -> int:
        self.server.actor = actor
        return await self.server.status(self.path, **query)


@pytest.fixture
async def customer(served: Installation) -> Customer:
    own = await served.house.customer("Erdre")
    await served.serve(own, *DAYS)
    await served.house.close()
    await served.sign()
    (invoice,) = await served.house.invoices(own)
    return Customer(served, own, invoice.id)


async def test_pages_hold_every_request_once_and_say_under_which_checkpoint(customer: Customer) -> None:
    rows, query = list[dict[str, Any]](), {"limit": "2"}
    while True:
        page = await customer.server.get(customer.path, **query)
        rows += page["data"]
        query["after"] = page["last_id"]
        if not page["has_more"]:
            break
    assert len(rows) == len(DAYS)
    assert [row["event_id"] for row in rows] == sorted({row["event_id"] for row in rows})
    assert sum(entry["quantity"] for row in rows for entry in row["entries"]) == sum(map(sum, DAYS))
    file = (await customer.server.client.get(customer.path, params={"format": "proof"})).json()
    assert file["requests"] == rows
    assert page["checkpoint"] == file["checkpoint"]


async def test_the_file_is_what_a_customer_can_check(customer: Customer) -> None:
    answer = await customer.server.client.get(customer.path, params={"format": "proof"})
    assert answer.headers["content-disposition"].endswith('.proof.json"')
    keys = await customer.served.sign()
    found = checked(answer.content, keys)
    assert (said(found), found.requests) == ([], len(DAYS))
    fields = json.loads(answer.content)
    del fields["requests"][1]
    assert {each.rule for each in checked(json.dumps(fields).encode(), keys).findings.kept} >= {"complete", "root"}


async def test_only_whoever_may_read_the_bills_of_that_organisation_sees_it(customer: Customer) -> None:
    for query in ({}, {"format": "proof"}):
        assert await customer.status_for(customer.actor(), **query) == 200
        assert await customer.status_for(SYSTEM, **query) == 200
        assert await customer.status_for(customer.actor(permissions=[Permission.USAGE_READ]), **query) == 403
        assert await customer.status_for(customer.actor(organisation_id="other"), **query) == 404
        assert await customer.status_for(customer.actor(workspace_id="one"), **query) == 403


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "1001"}, {"format": "xml"}, {"of": "all"}])
async def test_what_cannot_be_asked_is_refused(customer: Customer, query: dict[str, str]) -> None:
    assert await customer.server.status(customer.path, **query) == 422
