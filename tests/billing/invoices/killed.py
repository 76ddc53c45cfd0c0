"""Closes a month in processes that are killed: reads `ADDRESS NUMBER` lines, as `dying.serve` says."""

from galerne.billing.invoices import CloseOrder, close_billing
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from tests.billing.dying import serve
from tests.billing.invoices.customers import CLOSING, House


async def _close(url: str) -> None:
    database = Database(url)
    house = House(database, ManualClock(CLOSING), Ids())
    await close_billing(database, SYSTEM, CloseOrder(period="2026-10"), house.parts())
    await database.close()


if __name__ == "__main__":
    serve(_close)
