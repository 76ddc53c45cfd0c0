"""Run benchmarks by name: `python -m bench`, `python -m bench gateway --log`."""

import argparse
import importlib

from bench.report import publish

BENCHMARKS = {
    "engine": "tokens a second of the embedded engine: llama.cpp alone, our engine process, the whole server",
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
        publish(importlib.import_module(f"bench.{name}").run(), log=wanted.log)


if __name__ == "__main__":
    main()
