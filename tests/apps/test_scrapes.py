import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from galerne.apps.scrapes import SharedScrapes, labelled, socket_of


def registry(value: int) -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("level", "A level.", registry=made).set(value)
    Counter("things", "Things.", ["kind"], registry=made).labels('a "quoted" {kind}').inc(value)
    Histogram("time_seconds", "Times.", registry=made, buckets=(1, 2)).observe(value)
    return made


async def test_each_process_is_told_apart_and_each_family_is_in_one_piece(tmp_path: Path) -> None:
    parts = [SharedScrapes(tmp_path, str(number), registry(number)) for number in (1, 2)]
    for part in parts:
        await part.start()
    texts = [(await part.all()).decode() for part in parts]
    without_times = [re.sub(r"(?m)^.*_created.*\n", "", text) for text in texts]
    assert without_times[0] == without_times[1], "whoever is asked says the same"
    families = {family.name: family for family in text_string_to_metric_families(texts[0])}
    for name, sample in (("level", "level"), ("things", "things_total"), ("time_seconds", "time_seconds_sum")):
        found = {each.labels["worker"]: each.value for each in families[name].samples if each.name == sample}
        assert found == {"1": 1.0, "2": 2.0}
    assert families["things"].samples[0].labels["kind"] == 'a "quoted" {kind}'
    assert texts[0].count("# TYPE things_total ") == 1
    for part in parts:
        part.stop()


@pytest.mark.parametrize("left", ["a socket that nobody listens on", "no socket at all"])
async def test_a_process_that_does_not_answer_is_left_out(tmp_path: Path, left: str) -> None:
    lives, dead = (SharedScrapes(tmp_path, str(number), registry(number)) for number in (1, 2))
    await lives.start()
    if left.startswith("a socket"):
        socket_of(tmp_path, "2").touch()
    assert set(re.findall('worker="(.)"', (await lives.all()).decode())) == {"1"}
    lives.stop()
    dead.stop()


def test_nothing_told_is_nothing_shown() -> None:
    assert labelled({"1": "", "2": "\n"}) == ""
