import pytest

from galerne.kernel import Database
from tests.billing.invoices.customers import House, house_in


@pytest.fixture
async def house(database: Database) -> House:
    return await house_in(database)
