"""`galerne limits`: the operator's limits on organisations, plans and models, for people and for scripts."""

from tests.apps.test_tenant_commands import Run, printed, run

__all__ = ["run"]


def test_limits_are_set_listed_and_removed(run: Run) -> None:
    made = printed(run, "limits", "set", "plan", "team", "tokens", "month", "1000000", "--model", "large")
    assert (made["scope"], made["model"], made["set_by"]) == ("plan", "large", "operator")
    money = printed(run, "limits", "set", "plan", "team", "nano", "5h", "5000000000", "--currency", "EUR")
    code, out, err = run("limits", "list")
    assert (code, err) == (0, "")
    assert "plan team: tokens of large per month" in out
    assert "plan team: nano-EUR per 5h" in out
    assert "1,000,000" in out
    assert {each["id"] for each in printed(run, "limits", "list")} == {made["id"], money["id"]}
    assert printed(run, "limits", "remove", money["id"])["id"] == money["id"]
    assert [each["used"] for each in printed(run, "limits", "list")] == [0]


def test_limits_may_be_on_models_organisations_workspaces_and_keys(run: Run) -> None:
    bank = printed(run, "organisations", "create", "Banque X")
    there = ("--organisation", bank["id"])
    assert printed(run, "limits", "set", "model", "large", "concurrent", "none", "8")["scope_id"] == "large"
    organisation = printed(run, "limits", "set", "organisation", bank["id"], "requests", "minute", "60")
    assert organisation["set_by"] == "operator"
    key = printed(run, "limits", "set", "key", bank["key_id"], "tokens", "week", "10", *there)
    assert (key["set_by"], key["organisation_id"]) == ("organization", bank["id"])


def test_what_does_not_exist_is_refused_in_one_line(run: Run) -> None:
    for scope in ("plan", "model", "organisation", "workspace", "key"):
        code, _, err = run("limits", "set", scope, "unheard-of", "tokens", "day", "1")
        assert (code, err.count("\n")) == (1, 1)
    assert run("limits", "set", "plan", "team", "tokens", "year", "1")[0] == 2
    assert run("limits", "remove", "unheard-of")[0] == 1
