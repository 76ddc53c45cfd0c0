import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from galerne.engines import UnusableModel
from galerne.engines.llamacpp.conversion import gguf_file
from galerne.engines.llamacpp.model_file import read_model_file
from galerne.engines.llamacpp.weights import stored_tensors
from tests.engines.tiny import CONTEXT, LLAMA_3, SPECIAL, tensors, write_model


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def _change(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_converted_file_says_what_the_folder_says(tiny_model: Path, tmp_path: Path) -> None:
    model = read_model_file(gguf_file(tiny_model, tmp_path))
    assert (model.architecture, model.context_length, model.bos, model.eos) == ("llama", CONTEXT, "<s>", "</s>")
    assert model.control == {text: index for index, text in enumerate(SPECIAL)}
    assert model.template == (tiny_model / "chat_template.jinja").read_text()
    assert model.tool_call_token == SPECIAL.index("[TOOL_CALLS]")
    assert model.sampling == {}


def test_unchanged_model_is_converted_once_and_a_changed_one_anew(copy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = gguf_file(copy, cache)
    written = first.stat().st_mtime_ns
    assert gguf_file(copy, cache) == first
    assert first.stat().st_mtime_ns == written
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert gguf_file(copy, cache) != first
    sizes = [gguf_file(copy, cache, precision).stat().st_size for precision in ("f32", "f16", "q8_0")]
    assert sizes == sorted(sizes, reverse=True)


def test_conversion_that_fails_leaves_nothing_behind(copy: Path, tmp_path: Path) -> None:
    _change(copy / "config.json", lambda config: config.update(architectures=["GPT2LMHeadModel"]))
    with pytest.raises(UnusableModel, match="GPT2LMHeadModel"):
        gguf_file(copy, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_shards_give_the_same_file_as_one(tiny_model: Path, copy: Path, tmp_path: Path) -> None:
    named = tensors()
    (copy / "model.safetensors").unlink()
    halves = {"a.safetensors": dict(list(named.items())[::2]), "b.safetensors": dict(list(named.items())[1::2])}
    for name, half in halves.items():
        save_file(half, copy / name)
    index = {"weight_map": {tensor: name for name, half in halves.items() for tensor in half}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    read = {name: tensor.read() for name, tensor in stored_tensors(copy).items()}
    assert read.keys() == named.keys()
    assert all(np.array_equal(read[name], named[name].astype(np.float32)) for name in named)
    assert (
        read_model_file(gguf_file(copy, tmp_path)).parameters
        == read_model_file(gguf_file(tiny_model, tmp_path)).parameters
    )
    (copy / "b.safetensors").unlink()
    with pytest.raises(UnusableModel, match=r"b\.safetensors is named by .* but is missing"):
        gguf_file(copy, tmp_path)


def test_bfloat16_widens_exactly(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, 1.0e-38, 0.0], dtype=np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"t": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())
    read = stored_tensors(tmp_path)["t"].read()
    assert np.array_equal(read, (bits.astype(np.uint32) << 16).view(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM: this engine converts"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "RoPE scaling of type 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaling of type 'linear'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"vocab_size": 100}, "ids up to"),
    ],
)
def test_models_that_would_run_wrongly_are_refused(
    copy: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    _change(copy / "config.json", lambda config: config.update(change))
    with pytest.raises(UnusableModel, match=message):
        gguf_file(copy, tmp_path / "cache")


def test_unknown_pre_tokenizer_is_refused_with_its_pattern(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", LLAMA_3.replace("{1,3}", "{1,2}"))
    with pytest.raises(UnusableModel, match="splits text by a pattern that this engine does not know"):
        gguf_file(model, tmp_path / "cache")


def test_unknown_tensor_is_refused_by_name(copy: Path, tmp_path: Path) -> None:
    save_file({**tensors(), "model.layers.0.mlp.experts": np.zeros((2, 2), np.float16)}, copy / "model.safetensors")
    with pytest.raises(UnusableModel, match=r"model\.layers\.0\.mlp\.experts"):
        gguf_file(copy, tmp_path / "cache")


def test_sliding_window_bounds_the_context(copy: Path, tmp_path: Path) -> None:
    _change(copy / "config.json", lambda config: config.update(sliding_window=128))
    assert read_model_file(gguf_file(copy, tmp_path / "cache")).context_length == 128


def test_models_own_sampling_defaults_are_kept(copy: Path, tmp_path: Path) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.4, "top_p": 0.9}))
    assert read_model_file(gguf_file(copy, tmp_path / "cache")).sampling == {"temperature": 0.4, "top_p": 0.9}


def test_folder_with_a_gguf_file_needs_no_conversion(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ready"
    folder.mkdir()
    file = Path(shutil.copy(gguf_file(tiny_model, tmp_path / "cache"), folder / "model.gguf"))
    assert gguf_file(folder, tmp_path / "other") == file
    assert gguf_file(file, tmp_path / "other") == file
    shutil.copy(file, folder / "second.gguf")
    with pytest.raises(UnusableModel, match=r"holds 2 \.gguf files"):
        gguf_file(folder, tmp_path / "other")
