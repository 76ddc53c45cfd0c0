from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from galerne.apps.wiring import InstallationReplicas
from galerne.engines import Supervisor
from galerne.gateway import HealthBook
from galerne.kernel import ManualClock, Settings
from galerne.models import Address, Model
from tests.gateway.installation import model

NOW = datetime(2026, 11, 23, tzinfo=UTC)
FIRST = Address(id="1", url="http://gpu1/v1", zone="eu", api_key_env="GPU_KEY", most_parallel=4, created_at=NOW)
SECOND = Address(id="2", url="http://gpu2/v1", zone="fr", created_at=NOW)
BIG: Model = model("big", addresses=(FIRST, SECOND), zone=None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def health() -> HealthBook:
    return HealthBook()


@pytest.fixture
def replicas(clock: ManualClock, health: HealthBook, tmp_path: Path) -> InstallationReplicas:
    return InstallationReplicas(Settings(data=tmp_path, engine_parallel=3), Supervisor(clock), health, clock)


def test_each_address_is_a_replica_with_its_zone_key_and_room(
    replicas: InstallationReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_KEY", "secret")
    first, second = replicas.of(BIG)
    assert (first.id, first.base_url, first.zone, first.api_key, first.most_parallel) == (
        "1",
        "http://gpu1/v1",
        "eu",
        "secret",
        4,
    )
    assert (second.id, second.base_url, second.zone, second.api_key, second.most_parallel) == (
        "2",
        "http://gpu2/v1",
        "fr",
        None,
        None,
    )


def test_a_missing_key_keeps_one_address_from_use_not_the_others(
    replicas: InstallationReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPU_KEY", raising=False)
    first, second = replicas.of(BIG)
    assert (first.ready, second.ready) == (False, True)
    assert "GPU_KEY" in (first.last_error or "")


def test_a_rotated_key_and_a_newly_listed_adapter_are_noticed_within_a_second(
    replicas: InstallationReplicas, clock: ManualClock, health: HealthBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_KEY", "old")
    assert replicas.of(BIG)[0].serves is None
    monkeypatch.setenv("GPU_KEY", "new")
    health.probed("1", 0, alive=True, serves=frozenset({"big", "legal"}))
    clock.elapsed_s += 1
    assert (replicas.of(BIG)[0].api_key, replicas.of(BIG)[0].serves) == ("new", {"big", "legal"})


def test_a_changed_model_is_noticed_at_once(replicas: InstallationReplicas) -> None:
    assert len(replicas.of(BIG)) == 2
    assert [each.id for each in replicas.of(replace(BIG, addresses=(SECOND,)))] == ["2"]


def test_an_embedded_model_whose_engine_does_not_run_is_not_ready(replicas: InstallationReplicas) -> None:
    (only,) = replicas.of(model("brise", engine="llamacpp", zone="eu"))
    assert not only.ready
    assert "no engine" in (only.last_error or "")
