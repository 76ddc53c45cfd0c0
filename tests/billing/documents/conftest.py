from collections.abc import Iterator

import pytest

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.document import compute
from galerne.billing.documents.validation import Validator
from tests.billing.documents.samples import CASES


@pytest.fixture(scope="session")
def validator() -> Iterator[Validator]:
    with Validator(limit_s=60) as running:
        running.check(to_cii(compute(CASES["domestic"])))  # it starts here, in nobody's ten seconds
        yield running
