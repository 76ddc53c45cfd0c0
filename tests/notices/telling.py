"""A customer with a budget and an endpoint, and who receives what goes there."""

from dataclasses import dataclass, replace

from galerne.apps.worker import Worker
from galerne.governance import SYSTEM, Actor
from galerne.kernel import Settings
from galerne.notices import Delivery, list_deliveries
from tests.billing.invoices.customers import House
from tests.notices.receiver import Receiver


@dataclass
class Told:
    """All of them."""

    house: House
    settings: Settings
    customer: str
    endpoint_id: str
    secret: str
    receiver: Receiver

    @property
    def actor(self) -> Actor:
        return replace(SYSTEM, organisation_id=self.customer)

    async def work(self) -> list[str | None]:
        found = await Worker(self.house.database, self.house.clock, self.settings).run_now(
            ["rating", "budgets", "webhooks"]
        )
        return [state.problem for state in found]

    async def deliveries(self) -> list[Delivery]:
        async with self.house.database.reading() as session:
            return await list_deliveries(session, self.customer)
