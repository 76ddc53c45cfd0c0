import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from galerne.gateway.metrics import FAMILIES, GatewayMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "galerne.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = DASHBOARD["templating"]["list"]
SCRAPED = {"job", "instance"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# A metric and what is in its braces; none is used without a selector, or the choice of instances would pass it by.
SELECTOR = re.compile(r"\b([a-z_][a-z0-9_]*)\{([^}]*)\}")
NAME_OF_OURS = re.compile(r"\b(?:galerne|process|python)_[a-z0-9_]+")
MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
BY = re.compile(r"\bby\s*\(([^)]*)\)")


def known_metrics() -> dict[str, set[str]]:
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    ProcessCollector(registry=registry)
    labels = {family.name: set(family.labels) for family in FAMILIES}
    return {
        metric.name + suffix: labels.get(metric.name, set()) | SCRAPED | ({"le"} if suffix == "_bucket" else set())
        for metric in registry.collect()
        for suffix in SUFFIXES[metric.type]
    }


KNOWN = known_metrics()


QUERIES = [(panel["title"], target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize(("title", "query", "legend"), QUERIES, ids=lambda value: value[:40])
def test_a_query_uses_metrics_and_labels_that_exist(title: str, query: str, legend: str) -> None:
    used = SELECTOR.findall(query)
    assert used
    assert {name for name, _ in used} == set(NAME_OF_OURS.findall(query)), "a metric without a selector"
    for name, matchers in used:
        assert name in KNOWN
        assert set(MATCHER.findall(matchers)) <= KNOWN[name]
        assert 'job=~"$job", instance=~"$instance"' in matchers
    grouped = {label.strip() for group in BY.findall(query) for label in group.split(",")}
    assert grouped <= set.intersection(*(KNOWN[name] for name, _ in used))
    kept = grouped - {"le"} if BY.search(query) else SCRAPED
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, "a legend that names what the query has summed away"


def test_every_family_of_the_gateway_is_on_a_panel() -> None:
    used = {name for _, query, _ in QUERIES for name, _ in SELECTOR.findall(query)}
    unseen = [f.name for f in FAMILIES if not used & {f.name + suffix for suffix in SUFFIXES[f.kind]}]
    assert unseen == []


def test_panels_have_ids_of_their_own_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "two panels overlap"
    assert max(x for x, _ in cells) == 23


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_data_source_is_chosen_in_the_dashboard() -> None:
    assert VARIABLES[0]["type"] == "datasource"
    chosen = {"type": "prometheus", "uid": f"${{{VARIABLES[0]['name']}}}"}
    sources = [part["datasource"] for panel in PANELS for part in (panel, *panel["targets"])]
    assert all(source == chosen for source in [*sources, *(variable["datasource"] for variable in VARIABLES[1:])])


def test_the_variables_ask_for_metrics_and_labels_that_exist() -> None:
    assert [variable["name"] for variable in VARIABLES] == ["datasource", "job", "instance", "model"]
    for variable in VARIABLES[1:]:
        asked = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"])
        assert asked is not None
        assert asked[2] in KNOWN[asked[1]]


def test_rows_are_those_that_the_guide_names() -> None:
    guide = (DEPLOY.parent / "docs" / "guides" / "operate.md").read_text().lower()
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        *("Traffic", "Latency", "Queue and limits", "Replicas and health", "Settlement and books", "Process"),
    ]
    assert [row for row in rows if row.lower() not in guide] == []


def test_prometheus_is_told_where_the_metrics_are() -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    assert "metrics_path: /metrics" in text
    assert "job_name: galerne" in text
