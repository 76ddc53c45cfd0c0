from pathlib import Path

import pytest

from galerne.kernel import Database
from tests.billing.invoice_usage.houses import Installation, installation
from tests.billing.invoices.customers import house_in


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> Installation:
    return installation(await house_in(database), tmp_path / "data")
