"""Kill -9 of gateway, engine and database at random points under load; the harness is `tests/system/chaos.py`."""

import random
from collections import Counter

from tests.system.chaos import Outcome, Plan, run_in_passing

from bench.report import Report

_MOST_SHOWN = 20


def run(*, kills: int = 50, seed: int | None = None, sqlite: bool = False) -> Report:
    """What was killed and delivered, and whether each token was metered and paid once; failed if not."""
    chosen = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"chaos: seed {chosen}", flush=True)
    return _report(run_in_passing(Plan(kills, chosen, not sqlite)))


def _report(found: Outcome) -> Report:
    plan = found.plan
    answered = Counter({f"{status} {code or ''}".strip(): count for (status, code), count in found.statuses.items()})
    rows = [
        ("processes killed", _listed(found.kills)),
        ("requests, by their end", _listed(found.ends)),
        ("answers, by status or error code", _listed(answered)),
        ("tokens that clients received", str(found.tokens)),
        ("tokens metered", str(found.metered)),
        ("requests recovered from a dead gateway", str(found.recovered)),
        ("requests settled without payment", str(found.unpaid)),
        ("seconds", f"{found.seconds:.0f}"),
        ("discrepancies", str(len(found.problems))),
    ]
    kind = "PostgreSQL, fsync on" if plan.postgresql else "SQLite"
    return Report(
        title="chaos",
        how=f"{plan.kills} random points under the load of {plan.clients} clients, {kind}; seed {plan.seed}. "
        "A token may be metered and not received where its client died or hung up first; never the other way.",
        columns=("what", "found"),
        rows=rows,
        remarks=found.problems[:_MOST_SHOWN],
        failed=bool(found.problems),
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
