"""Figures as a table: printed, and kept with date and machine in docs/log.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LOG = Path(__file__).parents[1] / "docs" / "log.md"


@dataclass(frozen=True)
class Report:
    """One benchmark's result: what was measured how, columns, rows and remarks.

    `drawing` is shown below the table as it is. `failed` says that something was found which must not be.
    """

    title: str
    how: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str] = ()
    failed: bool = False
    drawing: str = ""

    def text(self) -> str:
        """The result in Markdown, the table in aligned columns."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        table = [_line(row, widths) for row in (self.columns, rule, *self.rows)]
        remarks = [f"- {remark}" for remark in self.remarks]
        drawn = [f"```text\n{self.drawing}\n```"] if self.drawing else []
        parts = [self.how, "\n".join(table), *drawn, *(["\n".join(remarks)] if remarks else [])]
        return "\n\n".join(parts) + "\n"


def publish(report: Report, where: str, *, log: bool) -> None:
    """Print a report of the machine `where`; with `log` also put it into docs/log.md, newest first."""
    print(f"\n{report.title}: {where}\n\n{report.text()}", flush=True)
    if log:
        day = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        entry = f"## {day} UTC: bench {report.title}\n\n{where}.\n\n{report.text()}\n"
        head, mark, older = LOG.read_text(encoding="utf-8").partition("## ")
        LOG.write_text(f"{head.rstrip()}\n\n{entry}{mark}{older}".rstrip() + "\n", encoding="utf-8")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "| " + " | ".join(padded) + " |"
