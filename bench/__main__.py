"""Run benchmarks by name: `python -m bench`, `python -m bench gateway --log`."""

import argparse
import importlib
import os

from bench import machine
from bench.report import publish

BENCHMARKS = {
    "engine": "tokens a second of the embedded engine: llama.cpp alone and our engine process",
    "server": "tokens a second through the whole server, against its engine process",
    "gateway": "what the gateway costs against a mock upstream",
}


def main() -> None:
    """Run the named benchmark, or all of them, and print what they found."""
    described = "\n".join(f"  {name:10} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure this project on this machine.",
        epilog=f"benchmarks:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=[*BENCHMARKS], help="which one; all of them when left out")
    parser.add_argument("--log", action="store_true", help="append the figures to docs/log.md")
    wanted = parser.parse_args()
    for name in [wanted.name] if wanted.name else BENCHMARKS:
        where = machine.describe()
        cores = os.sched_getaffinity(0)
        with machine.ahead_of_others() as ahead:
            report = importlib.import_module(f"bench.{name}").run()
        os.sched_setaffinity(0, cores)
        publish(report, f"{where}{', raised priority' if ahead else ''}", log=wanted.log)


if __name__ == "__main__":
    main()
