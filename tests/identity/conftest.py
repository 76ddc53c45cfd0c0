import pytest

from galerne.kernel import Database
from tests.identity.tenants import Tenants, two_tenants


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    return await two_tenants(database)
