"""The operator's commands for prices and rating, on both databases."""

import json
from pathlib import Path

from tests.apps.test_tenant_commands import Run, printed, run

__all__ = ["run"]  # a fixture


def test_prices_are_changed_quoted_given_by_list_and_rated(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    rates = [
        {"token_class": name, "currency": "EUR", "price": price} for name, price in (("input", "1"), ("output", "4"))
    ]
    file.write_text(json.dumps({"rates": rates}))
    assert printed(run, "prices", "change", str(file)) == {"version": 1}
    asked = ("prices", "quote", "large", "--input", "1000", "--output", "100")
    quoted = printed(run, *asked, "--tier", "batch")
    assert (quoted["expected"], quoted["most"]) == ("0.0007", "0.0007")
    assert printed(run, "prices", "give-list", "special", "--plan", "free")["list"] == "special"
    file.write_text(json.dumps({"price_list": "special", "rates": [rates[0] | {"price": "0.5"}, rates[1]]}))
    printed(run, "prices", "change", str(file))
    assert printed(run, "rating", "run") == {"rated": 0, "unmatched": 0, "late": 0, "priced_since": 0}
    assert printed(run, "rating", "queue")["unmatched"] == []
    assert printed(run, "rating", "rerate") == {"priced_since": 0}
    code, _, err = run("prices", "give-list", "special")
    assert (code, "--plan" in err) == (1, True)
    file.write_text('{"rates": 1}')
    assert run("prices", "change", str(file))[0] == 1
