"""Whether memory stays flat: a mixed load of everything that callers, keys and upstreams do, for as long as you like.

Memory and open descriptors are sampled each second, the server's gauges every ten. What is measured begins after a
warm-up that fills what a server keeps: as many requests at once as the load ever has, then the same load for four
times as long as any cache trusts what it holds (`GALERNE_OUTAGE_S`). From then on nothing may grow: keys come and go,
and are as many at the end as at the beginning.
"""

import asyncio
import random
import re
import tempfile
import time
import urllib.error
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench import machine
from bench.chart import chart
from bench.installation import Installation, Place, serving, set_up
from bench.mixture import HUNG, Mixture
from bench.postgresql import running_postgresql
from bench.processes import mocking
from bench.report import Report
from bench.trend import trend
from bench.upstream import FAULTS, SHORT, stream_model

_WARM_UP_S = 240
_AT_ONCE = 256
_TOLD_EVERY_S = 15
_MOST_MB = 130
_MODELS = (SHORT, stream_model(5), stream_model(20), *FAULTS)
_GAUGES_EVERY_S = 10
_NEW_KEY_EVERY_S = 2
_SETTLES_S = 5
_KEYS = 300
_LIMITED_KEYS = 20
_SEED = 3
_LEAST_SAMPLES = 40
_PLENTY = 1_000_000
_HOUR_S = 3600
_GAUGE = re.compile(r"^(galerne_\w+)(?:\{[^}]*\})? ([0-9.e+-]+)$")


@dataclass
class _Samples:
    times_s: list[float] = field(default_factory=list[float])
    rss_mb: list[float] = field(default_factory=list[float])
    descriptors: list[int] = field(default_factory=list[int])
    gauges: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    series: list[int] = field(default_factory=list[int])
    warm: int = 0
    idle_mb: float = 0.0
    after_mb: float = 0.0

    def take(self, pid: int) -> None:
        self.times_s.append(time.monotonic())
        self.rss_mb.append(machine.rss_mb(pid))
        self.descriptors.append(machine.descriptors(pid))

    def warmed_up(self) -> None:
        self.warm = len(self.times_s)

    def growth(self) -> tuple[float, float] | None:
        """MB an hour since the warm-up, and half the width of its 95 % interval; None while samples are too few."""
        times_s, rss_mb = self.times_s[self.warm :], self.rss_mb[self.warm :]
        if not self.warm or len(times_s) < _LEAST_SAMPLES:
            return None
        found = trend(times_s, rss_mb)
        return found.slope * _HOUR_S, found.uncertainty * _HOUR_S

    def read(self, metrics: str) -> None:
        lines = metrics.splitlines()
        gauges = {line.split()[2] for line in lines if line.startswith("# TYPE galerne_") and line.endswith(" gauge")}
        found = defaultdict[str, float](float)
        for match in filter(None, map(_GAUGE.match, lines)):
            if match[1] in gauges:
                found[match[1]] += float(match[2])
        self.gauges.append(dict(found))
        self.series.append(sum(not line.startswith("#") for line in lines))


def run(*, minutes: float = 30.0, rate: int = 200, bound: float = 12.0, postgresql: bool = False) -> Report:
    """Memory over `minutes` at `rate` requests a second, after the warm-up; failed if it grows by more than `bound` MB
    an hour, or is above 130 MB (PSS) after the load.
    """
    if minutes * 60 < _LEAST_SAMPLES:
        raise SystemExit(f"a soak shorter than {_LEAST_SAMPLES} s has too few samples for a slope")
    measured, callers = machine.split_cores()
    with (
        tempfile.TemporaryDirectory(prefix="galerne-bench-") as folder,
        mocking(callers) as mock,
        running_postgresql(callers) if postgresql else nullcontext() as database,
    ):
        place = Place(Path(folder) / "data", database.address if database else None)
        key = set_up(place, mock.target, _MODELS)
        with serving(place, key, measured, "--no-engines") as installation, machine.on_cores(callers):
            samples, mixture = uvloop.run(_soaked(installation, rate, minutes * 60))
            books = installation.metered(), place.books_are_sound()
    load = f"{rate} requests/s, seed {_SEED}, one worker on one core, {'PostgreSQL' if postgresql else 'SQLite'}"
    return _report(samples, mixture, books, bound, load)


async def _soaked(installation: Installation, rate: int, seconds: float) -> tuple[_Samples, Mixture]:
    keys = [await _key(installation, _PLENTY) for _ in range(_KEYS)]
    limited = [await _key(installation, 1) for _ in range(_LIMITED_KEYS)]
    mixture = Mixture(installation.target, keys, limited, random.Random(_SEED))
    samples = _Samples(idle_mb=machine.pss_mb(installation.pid))
    await _read_gauges(installation, samples)
    samples.take(installation.pid)
    around = [
        asyncio.create_task(_every(1, lambda: _sample(installation, samples))),
        asyncio.create_task(_every(_GAUGES_EVERY_S, lambda: _read_gauges(installation, samples))),
        asyncio.create_task(_every(_NEW_KEY_EVERY_S, lambda: _another_key(installation, mixture))),
        asyncio.create_task(_every(_TOLD_EVERY_S, lambda: _tell(samples, mixture, seconds))),
    ]
    await mixture.all_at_once(_AT_ONCE)
    asyncio.get_running_loop().call_later(_WARM_UP_S, samples.warmed_up)
    await mixture.run(rate, _WARM_UP_S + seconds)
    for each in around:
        each.cancel()
    for ended in await asyncio.gather(*around, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise RuntimeError("a sampler ended early") from ended
    await asyncio.sleep(_SETTLES_S)
    samples.descriptors.append(machine.descriptors(installation.pid))
    samples.after_mb = machine.pss_mb(installation.pid)
    await _read_gauges(installation, samples)
    return samples, mixture


async def _every(gap_s: float, act: Callable[[], Awaitable[None]]) -> None:
    due_s = time.monotonic()
    while True:
        due_s += gap_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        await act()


async def _sample(installation: Installation, samples: _Samples) -> None:
    samples.take(installation.pid)


async def _read_gauges(installation: Installation, samples: _Samples) -> None:
    samples.read(await asyncio.to_thread(installation.metrics))


async def _another_key(installation: Installation, mixture: Mixture) -> None:
    """A new key in the place of the oldest one, which nobody uses any more."""
    try:
        mixture.keys.append(await _key(installation, _PLENTY))
        del mixture.keys[0]
    except urllib.error.HTTPError as error:  # on a machine that has too much to do, not the end of the run
        mixture.count("new key", str(error.code))


async def _tell(samples: _Samples, mixture: Mixture, seconds: float) -> None:
    past_s = samples.times_s[-1] - samples.times_s[0]
    grown = samples.growth()
    slope = "warming up" if grown is None else f"{grown[0]:+7.1f} ± {grown[1]:.1f} MB an hour"
    print(
        f"{past_s / 60:6.2f} of {(seconds + _WARM_UP_S) / 60:.1f} minutes: RSS {samples.rss_mb[-1]:6.1f} MB, "
        f"at most {mixture.most_at_once} at once, {slope}",
        flush=True,
    )
    mixture.most_at_once = mixture.at_once


async def _key(installation: Installation, per_minute: int) -> str:
    wanted = {"name": "soak", "requests_per_minute": per_minute}
    made = await asyncio.to_thread(installation.control.post, "/v1/admin/api-keys", wanted)
    return str(made["key"])


def _report(samples: _Samples, mixture: Mixture, books: tuple[int, bool], bound: float, load: str) -> Report:
    slope, give = samples.growth() or (0.0, 0.0)
    hung = sum(each[HUNG] for each in mixture.outcomes.values())
    minutes = (samples.times_s[-1] - samples.times_s[samples.warm]) / 60
    rows = [*_memory_rows(samples, slope, give), *_gauge_rows(samples), *_load_rows(mixture, *books)]
    verdict = "above" if slope > bound else "surely within" if slope + give <= bound else "within, if not surely,"
    large = "above" if samples.after_mb > _MOST_MB else "within"
    return Report(
        "soak",
        f"{minutes:.1f} minutes at {load}, after {_WARM_UP_S / 60:g} minutes of the same and {_AT_ONCE} requests at "
        f"once; {_KEYS} keys, one of them another every {_NEW_KEY_EVERY_S} s. RSS each second; the slope is that of "
        "all that follows the warm-up, with its 95 % confidence interval.",
        ["figure", "found"],
        rows,
        [
            f"Memory: {slope:+.1f} MB an hour, {verdict} the bound of {bound:g}.",
            f"Afterwards: {samples.after_mb:.0f} MB (PSS), {large} the bound of {_MOST_MB}.",
            f"Requests that hung: {hung}.",
        ],
        failed=slope > bound or samples.after_mb > _MOST_MB or hung > 0 or not books[1],
        drawing=f"RSS in MB since the warm-up\n{chart(samples.rss_mb[samples.warm :])}",
    )


def _memory_rows(samples: _Samples, slope: float, give: float) -> list[list[str]]:
    rss, files, warm = samples.rss_mb, samples.descriptors, samples.warm
    return [
        ["RSS at the start / after the warm-up, MB", f"{rss[0]:.1f} / {rss[warm]:.1f}"],
        ["RSS at the end / highest, MB", f"{rss[-1]:.1f} / {max(rss):.1f}"],
        ["PSS at the start / 5 s after the load, MB", f"{samples.idle_mb:.1f} / {samples.after_mb:.1f}"],
        ["slope, MB an hour", f"{slope:+.1f} ({slope - give:+.1f} to {slope + give:+.1f})"],
        ["open descriptors: start / highest / afterwards", f"{files[0]} / {max(files)} / {files[-1]}"],
        ["time series in /metrics: start / end", f"{samples.series[0]} / {samples.series[-1]}"],
    ]


def _gauge_rows(samples: _Samples) -> list[list[str]]:
    names = sorted({name for gauges in samples.gauges for name in gauges})
    return [
        [
            f"`{name}`: highest / afterwards",
            f"{max(gauges.get(name, 0) for gauges in samples.gauges):g} / {samples.gauges[-1].get(name, 0):g}",
        ]
        for name in names
    ]


def _load_rows(mixture: Mixture, metered: int, sound: bool) -> list[list[str]]:
    rows = [
        [kind, ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items()))]
        for kind, outcomes in sorted(mixture.outcomes.items())
    ]
    last = ["every balance is what its transfers say", "yes" if sound else "no"]
    return [*rows, ["requests metered", f"{metered:,}"], last]
