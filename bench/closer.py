"""`python -m bench.closer FOLDER MONTH`: closes a month as `galerne billing close` does, and tells what stages took.

A process of its own, so that its processor time and memory are those of closing alone. It prints one line of JSON.
"""

import json
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from galerne.apps.commands.opened import with_database
from galerne.billing.documents.validation import Finding, Validator
from galerne.billing.invoices import CloseOrder, CloseParts, CloseReport, close_billing, report_fields
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, SystemClock


@dataclass
class Stages:
    """What each stage took: seconds by the clock, seconds of this process's processor time, memory at its end in MB."""

    pid: int
    began: tuple[str, float, float] = ("beginning", 0.0, 0.0)
    took: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    checking_s: float = 0.0

    def reached(self, stage: str) -> None:
        """A stage has begun, so another has ended."""
        name, wall_s, cpu_s = self.began
        if stage != name:
            now_s, now_cpu_s = time.monotonic(), time.process_time()
            if wall_s:
                took = {"wall_s": now_s - wall_s, "cpu_s": now_cpu_s - cpu_s, "rss_mb": machine.rss_mb(self.pid)}
                self.took[name] = took
            self.began = stage, now_s, now_cpu_s


def main() -> None:
    """Close the month and print what it took."""
    folder, month = Path(sys.argv[1]), sys.argv[2]
    stages, clock = Stages(os.getpid()), SystemClock()

    async def work(database: Database) -> CloseReport:
        with Validator() as validator:

            def check(xml: bytes) -> list[Finding]:
                began_s = time.monotonic()
                found = list(validator.check(xml))
                stages.checking_s += time.monotonic() - began_s
                return found

            parts = CloseParts(
                ids=Ids(), clock=clock, check=check, progress=lambda stage, _done, _all: stages.reached(stage)
            )
            stages.reached("beginning")
            return await close_billing(database, SYSTEM, CloseOrder(period=month), parts)

    report = with_database(folder, work)
    stages.reached("end")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = {
        "stages": stages.took,
        "checking_s": stages.checking_s,
        "checker_cpu_s": children.ru_utime + children.ru_stime,
        "peak_mb": machine.peak_mb(stages.pid),
        "report": report_fields(report),
    }
    print(json.dumps(said, default=str))


if __name__ == "__main__":
    main()
