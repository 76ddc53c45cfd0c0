"""Writes docs/reference from the code, so that it cannot lag behind: settings, command line, HTTP routes, metrics.

`python docs/generate.py` writes; `python docs/generate.py --check` exits 1 if something written is stale.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from typer.main import get_command

from galerne.apps.cli import app
from galerne.apps.control_plane import documented_routes
from galerne.apps.duty_figures import DutyFigures
from galerne.gateway.cells import MOST_CELLS, OTHER
from galerne.gateway.metrics import FAMILIES, GatewayMetrics
from galerne.kernel import Settings
from galerne.kernel.duties import DutyState

REFERENCE = Path(__file__).parent / "reference"
_SOME_DUTY = DutyState(
    name="rating",
    due_at=datetime.fromtimestamp(0, UTC),
    holder=None,
    lease_until=None,
    begun_at=None,
    ended_at=None,
    succeeded_at=datetime.fromtimestamp(0, UTC),
    done=0,
    took_ms=0,
    failures=0,
    problem=None,
)
_MADE = "Made from the code by `make docs`; edit the code instead.\n"


def settings_page() -> str:
    """Every environment variable, with its default and what it is for."""
    rows = [
        f"| `GALERNE_{name.upper()}` | {_default(name, field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["# Settings", "", _MADE, "| variable | default | meaning |", "| --- | --- | --- |", *rows, ""])


def cli_page() -> str:
    """Each command's help, as it prints it."""
    parts = ["# Command line", "", _MADE]
    for path, text in _helps(get_command(app), "galerne"):
        parts += [f"## {path}", "", "```", text, "```", ""]
    return "\n".join(parts)


def http_page() -> str:
    """Every route with the permission that it asks for."""
    rows = [
        f"| `{each.method}` | `{each.path}` | {each.permission or '-'} | {each.summary} |"
        for each in documented_routes()
        if each.path.startswith("/v1/")
    ]
    return "\n".join(
        [
            "# HTTP",
            "",
            _MADE,
            "The full schemas are at `/docs` of a running server.",
            "",
            "| method | path | permission | what it does |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def metrics_page() -> str:
    """Every metric at `/metrics`, from a registry filled as a server fills its own."""
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(DutyFigures([_SOME_DUTY]))
    own = {family.name: family for family in FAMILIES}
    rows: list[str] = []
    for metric in registry.collect():
        labels = own[metric.name].labels if metric.name in own else metric.samples[0].labels
        named = ", ".join(f"`{label}`" for label in labels) or "-"
        suffix = "_total" if metric.type == "counter" else ""
        rows.append(f"| `{metric.name}{suffix}` | {metric.type} | {named} | {metric.documentation} |")
    return "\n".join(
        [
            "# Metrics",
            "",
            _MADE,
            "What `/metrics` tells Prometheus. A histogram is queried as `_bucket`, `_sum` and `_count`. `model` and",
            "`replica` are ids of the catalogue, never a caller's words; no label names a tenant or a key. A metric",
            f"has at most {MOST_CELLS:,} label sets; what comes later is counted with every label saying `{OTHER}`.",
            "",
            "| metric | type | labels | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _default(name: str, value: object) -> str:
    if name == "data":
        return "`~/.local/share/galerne`"
    return "-" if value in (None, "") else f"`{value}`"


def _helps(command: Any, path: str) -> Iterator[tuple[str, str]]:
    context = command.make_context(path, [], resilient_parsing=True, terminal_width=110, max_content_width=110)
    yield path, command.get_help(context).rstrip()
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from _helps(command.get_command(context, name), f"{path} {name}")


def main(check: bool) -> int:
    """Write or check each page; the exit status."""
    pages = {"settings.md": settings_page(), "cli.md": cli_page(), "http.md": http_page(), "metrics.md": metrics_page()}
    REFERENCE.mkdir(exist_ok=True)
    stale = [
        name
        for name, text in pages.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != text
    ]
    if check:
        if stale:
            sys.stderr.write(f"stale: {', '.join(stale)}; run `make docs`\n")
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / name).write_text(pages[name])
        sys.stdout.write(f"wrote docs/reference/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
