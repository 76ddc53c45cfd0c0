"""What admission and quotes read is found by indexes: as long with ten thousand customers as with one."""

from collections.abc import Callable

import pytest

from galerne.billing import QuoteAsk, book_script, find_plan_script, quote_script
from galerne.identity import plan_of_script, resolve_key_script
from galerne.kernel import Database, NotFound, Query, Script, Unauthenticated, open_reader
from galerne.ledger import prepaid_accounts_script
from galerne.metering import LimitSubject, rules_script
from galerne.models import find_model_script
from tests.identity.tenants import NOW

SUBJECT = LimitSubject(key_id="key", workspace_id="workspace", organisation_id="organisation", plan="free")
READS: dict[str, Callable[[], Script[object]]] = {
    "key": lambda: resolve_key_script("gal_nobodys", NOW),
    "model": lambda: find_model_script("brise"),
    "rules": lambda: rules_script(SUBJECT, "brise"),
    "plan": lambda: find_plan_script("free"),
    "plan of": lambda: plan_of_script("organisation"),
    "prepaid accounts": lambda: prepaid_accounts_script("organisation"),
    "prices": lambda: book_script(model_id="brise", subjects=("organisation", "free")),
    "quote": lambda: quote_script("", QuoteAsk(model_id="brise", input_tokens=1, output_tokens=1), NOW),
}
# Aliases are looked through where no model has the name; the operator adds models, callers do not.
LOOKED_THROUGH = "SCAN models USING INDEX"


def explained(script: Script[object], *, is_sqlite: bool) -> Script[list[str]]:
    explain, steps, rows = ("EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"), list[str](), None
    if not is_sqlite:  # else few rows are read whole, whatever indexes there are
        yield Query("SET LOCAL enable_seqscan = off", {})
    try:
        while True:
            statement = script.send(rows)  # pyright: ignore[reportArgumentType]  # None starts a generator
            assert isinstance(statement, Query)
            plan = yield Query(f"{explain} {statement.sql}", statement.values)
            steps += [row[-1] for row in plan]
            rows = yield statement
    except (StopIteration, NotFound, Unauthenticated):
        return steps


@pytest.mark.parametrize("name", READS)
async def test_no_table_is_read_whole(database: Database, name: str) -> None:
    reader = open_reader(database.url)
    steps = await reader.run(explained(READS[name](), is_sqlite=database.is_sqlite))
    await reader.close()
    scans = [step for step in steps if step.startswith("SCAN ") or "Seq Scan" in step]
    assert steps
    assert not [step for step in scans if "json_each" not in step and not step.startswith(LOOKED_THROUGH)]
