"""What a run shows and leaves behind while it goes: progress bar, metrics.jsonl, loss curve. Decides nothing."""

# matplotlib's own annotations are partial.
# pyright: reportUnknownMemberType=false

import json
from collections import deque
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from galerne.training.atomic import atomic_path
from galerne.training.loop import StepReport

__all__ = ["Telemetry", "draw_losses", "forget_after", "read_metrics", "remaining_s"]

METRICS = "metrics.jsonl"
CURVE = "loss.png"
_LINE_EVERY_S = 30.0
_RECENT_STEPS = 50


class Telemetry:
    """Receives every step of a run: a bar on a terminal, a line every half minute elsewhere, and `metrics.jsonl`."""

    def __init__(self, folder: Path, console: Console, *, from_step: int) -> None:
        forget_after(folder / METRICS, from_step)
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._console = console
        self._recent: deque[StepReport] = deque(maxlen=_RECENT_STEPS)
        self._last_line_s = -_LINE_EVERY_S
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0, state="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()

    def report(self, step: StepReport) -> None:
        """Write one step down and show where the run stands."""
        self._file.write(json.dumps(asdict(step)) + "\n")
        self._file.flush()
        self._recent.append(step)
        state = self._state(step)
        self._bar.update(self._task, completed=step.progress, state=state)
        if not self._console.is_terminal and step.elapsed_s - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = step.elapsed_s
            self._console.print(f"{step.progress:6.1%}  {state}", highlight=False)

    def _state(self, step: StepReport) -> str:
        first, count = self._recent[0], len(self._recent)
        loss = sum(report.loss for report in self._recent) / count
        span = step.elapsed_s - first.elapsed_s
        speed = f"{(step.tokens - first.tokens) / span:,.0f} tokens/s" if span > 0 else "-"
        left = remaining_s(first, step)
        clock = "-" if left is None else f"{left / 60:.0f} min left"
        return f"step {step.step:,}  loss {loss:.3f}  {speed}  {step.tokens / 1e6:.2f} M tokens  {clock}"


def remaining_s(first: StepReport, last: StepReport) -> float | None:
    """Seconds until the end if it goes on as between two reports; None when that cannot be told."""
    gained = last.progress - first.progress
    return (1 - last.progress) * (last.elapsed_s - first.elapsed_s) / gained if gained > 0 else None


def read_metrics(folder: Path) -> list[StepReport]:
    """The steps that a run wrote down."""
    with (folder / METRICS).open(encoding="utf-8") as lines:
        return [StepReport(**json.loads(line)) for line in lines]


def forget_after(path: Path, step: int) -> None:
    """Drop the steps after `step`, and a torn last line: the run takes them again from its checkpoint."""
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.endswith("}") or json.loads(line)["step"] > step:
            break
        kept.append(line + "\n")
    with atomic_path(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")


def draw_losses(reports: list[StepReport], path: Path, title: str) -> None:
    """Draw the loss over the tokens seen as a PNG: every step faint, the running mean strong."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    seen = [report.tokens / 1e6 for report in reports]
    losses = [report.loss for report in reports]
    mean, smooth = losses[0], list[float]()
    for loss in losses:
        mean += (loss - mean) * 0.03
        smooth.append(mean)
    axes.plot(seen, losses, linewidth=0.5, alpha=0.35, color="tab:blue")
    axes.plot(seen, smooth, linewidth=1.5, color="tab:blue")
    axes.set(xlabel="tokens seen (millions)", ylabel="training loss (nats per token)", title=title)
    axes.grid(alpha=0.3)
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")
