import sys
from pathlib import Path

import pytest

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.document import compute
from galerne.billing.documents.validation import Validator
from galerne.kernel import Unavailable, Unprocessable
from tests.billing.documents.samples import CASES

DOMESTIC = to_cii(compute(CASES["domestic"]))
DIES_ONCE = """
import pathlib, sys
mark = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    if not mark.exists():
        mark.touch()
        sys.exit(99)
    print('{"id": 2, "findings": []}', flush=True)
"""
TALKS = """
import sys
for line in sys.stdin:
    print("Warning: something", '{"id": %s, "findings": []}' % line.split()[0], sep="\\n", flush=True)
"""


def test_what_is_no_xml_or_declares_a_document_type_is_refused_and_the_process_goes_on(validator: Validator) -> None:
    for bad in (b"no", b"", b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'):
        with pytest.raises(Unprocessable):
            validator.check(bad)
    assert validator.check(DOMESTIC) == ()


def test_a_process_that_died_is_started_again(tmp_path: Path) -> None:
    with Validator(command=(sys.executable, "-c", DIES_ONCE, str(tmp_path / "mark"))) as validator:
        assert validator.check(DOMESTIC) == ()


def test_an_answer_to_something_else_is_not_taken_for_this_one_s() -> None:
    with Validator(command=(sys.executable, "-c", TALKS)) as validator, pytest.raises(Unavailable):
        validator.check(DOMESTIC)


def test_a_document_that_kills_it_twice_is_an_error_with_a_name() -> None:
    with Validator(command=(sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(99)")) as validator:
        with pytest.raises(Unavailable) as refused:
            validator.check(DOMESTIC)
        assert refused.value.code == "validator_crashed"


def test_a_process_that_hangs_is_ended_at_the_limit() -> None:
    with Validator(limit_s=0.2, command=(sys.executable, "-c", "import time; time.sleep(60)")) as validator:
        with pytest.raises(Unavailable) as refused:
            validator.check(DOMESTIC * 100)  # more than a pipe holds
        assert refused.value.code == "validation_timed_out"
