"""`galerne plans` and `galerne subscriptions`: for people and for scripts."""

import json
from pathlib import Path

from tests.apps.test_tenant_commands import Run, printed, run

__all__ = ["run"]


def test_an_organisation_is_subscribed_changed_and_charged(run: Run) -> None:
    bank = printed(run, "organisations", "create", "Banque X")["id"]
    order = ("subscriptions", "start", bank, "team", "--seats", "3", "--no-trial", "--request-id", "a")
    made = printed(run, *order)
    assert (made["status"], made["item"]["seats"]) == ("active", 3)
    assert printed(run, *order) == made
    later = printed(run, "subscriptions", "ask", bank, "change", "--plan", "pro", "--at-period-end")
    assert (later["item"]["plan"], later["pending"]["plan"]) == ("team", "pro")
    lines = printed(run, "subscriptions", "charges", "--organisation", bank, "--until", "40d")
    assert [line["amount"] for line in lines] == ["74.97", "14.99"]
    assert printed(run, "subscriptions", "advance") == {"object": "advance", "subscriptions": 0}
    code, out, _ = run("subscriptions", "list")
    assert (code, "active" in out) == (0, True)
    assert run("subscriptions", "ask", bank, "change")[0] == 1
    assert printed(run, "subscriptions", "list")[0]["organization_id"] == bank


def test_a_plan_is_published_from_a_file(run: Run, tmp_path: Path) -> None:
    fee = {"interval": "month", "currency": "EUR", "amount": "9.50"}
    plan = {"plan": "student", "weight": 1, "tier": "standard", "description": "For students.", "fees": [fee]}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    assert printed(run, "plans", "publish", str(file))["version"] == 1
    assert printed(run, "plans", "publish", str(file))["version"] == 2
    file.write_text(json.dumps(plan | {"weight": 0}))
    code, _, err = run("plans", "publish", str(file))
    assert (code, err.count("\n"), "weight" in err) == (1, 1, True)
    assert "9.50 EUR/month" in run("plans", "versions")[1]
