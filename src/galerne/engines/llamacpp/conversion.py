"""Knows how a Hugging Face model folder becomes a GGUF file, for the llama, mistral and bert families.

The tensor names and the metadata keys are those of the GGUF specification (ggml-org/ggml, docs/gguf.md).
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType
from gguf.quants import quantize

from galerne.engines.failures import UnusableModel
from galerne.engines.llamacpp.vocabulary import Vocabulary, read_json, read_vocabulary
from galerne.engines.llamacpp.weights import Floats, StoredTensor, stored_tensors, weight_files

Precision: TypeAlias = Literal["f32", "f16", "q8_0"]

# Raised whenever the written file changes, so that files converted by an older version are not used.
_FORMAT = 1
_CONVERTED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "sentence_bert_config.json",
    "chat_template.jinja",
)
_QUANTISED = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "q8_0": GGMLQuantizationType.Q8_0,
}
_FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
}
_Q8_BLOCK = 32

_LLAMA_TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_BERT_TENSORS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


@dataclass(frozen=True)
class _Family:
    architecture: str
    describe: Callable[[GGUFWriter, dict[str, Any]], None]
    rename: Callable[[str], str | None]
    arrange: Callable[[str, Floats, dict[str, Any]], Floats]


def gguf_file(model: Path, cache: Path, precision: Precision = "f16") -> Path:
    """The GGUF file for `model`: itself if it is one, else a conversion of the folder, kept in `cache` by content.

    The name in `cache` is a hash over everything that goes into the file, so a changed model is converted anew and
    an unchanged one never. Writing is atomic: a crash leaves no half file under the final name.
    Raises `UnusableModel` for folders that are corrupt, truncated or of another family.
    """
    if model.is_file():
        return model
    if not model.is_dir():
        raise UnusableModel(f"{model} does not exist")
    if ready := sorted(model.glob("*.gguf")):
        if len(ready) > 1:
            raise UnusableModel(f"{model} holds {len(ready)} .gguf files; name one of them")
        return ready[0]
    target = cache / f"{_content_hash(model, precision)}.gguf"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=cache, suffix=".partial", delete=False) as partial:
            path = Path(partial.name)
        try:
            convert(model, path, precision)
            path.replace(target)
        finally:
            with suppress(FileNotFoundError):
                path.unlink()
    return target


def convert(folder: Path, target: Path, precision: Precision = "f16") -> None:
    """Writes the model in `folder` as GGUF to `target`; one-dimensional tensors stay float32.

    Raises `UnusableModel` as `gguf_file` does.
    """
    config = _trained_length(folder, read_json(folder / "config.json"))
    family = _family(config)
    tensors = stored_tensors(folder)
    writer = GGUFWriter(None, family.architecture)
    family.describe(writer, config)
    writer.add_file_type(_FILE_TYPES[precision])
    _add_vocabulary(writer, read_vocabulary(folder, int(config["vocab_size"])))
    _add_template(writer, folder)
    _add_sampling(writer, folder)
    for name, values in _converted(tensors, family, config):
        _add_tensor(writer, name, values, precision)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with target.open("rb") as written:
        os.fsync(written.fileno())


def _content_hash(folder: Path, precision: Precision) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {precision}".encode())
    for file in (*(folder / name for name in _CONVERTED), *weight_files(folder)):
        digest.update(f"\0{file.name}\0{file.stat().st_size if file.is_file() else -1}\0".encode())
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:40]


def _family(config: dict[str, Any]) -> _Family:
    declared = cast("list[str]", config.get("architectures") or [])
    if {"LlamaForCausalLM", "MistralForCausalLM"} & set(declared):
        return _Family("llama", _describe_llama, _rename_llama, _arrange_llama)
    if {"BertModel", "BertForMaskedLM"} & set(declared):
        return _Family("bert", _describe_bert, _rename_bert, _arrange_bert)
    names = ", ".join(declared) or "none named in config.json"
    raise UnusableModel(f"architecture {names}: this engine converts Llama, Mistral and BERT models")


def _describe_llama(writer: GGUFWriter, config: dict[str, Any]) -> None:
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_width = int(config.get("head_dim") or width // heads)
    rope = cast("dict[str, Any]", config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise UnusableModel(f"config.json asks for RoPE scaling of type {kind!r}, which is not supported")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UnusableModel(f"config.json sets {key}, which is not supported")
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(_context_length(config))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


def _context_length(config: dict[str, Any]) -> int:
    # llama.cpp's llama graph attends to everything; within one window that is what a sliding window does too.
    positions = int(config["max_position_embeddings"])
    return min(positions, int(config.get("sliding_window") or positions))


def _trained_length(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    # Sentence transformers say beside the model how much of its positions they were trained with.
    file = folder / "sentence_bert_config.json"
    trained = read_json(file).get("max_seq_length") if file.is_file() else None
    positions = int(config["max_position_embeddings"]) if "max_position_embeddings" in config else 0
    return {**config, "max_position_embeddings": min(int(trained), positions)} if trained else config


def _describe_bert(writer: GGUFWriter, config: dict[str, Any]) -> None:
    if config.get("hidden_act", "gelu") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise UnusableModel("only BERT models with GELU and absolute positions are supported")
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_eps(float(config.get("layer_norm_eps", 1e-12)))
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_token_type_count(int(config.get("type_vocab_size", 2)))
    writer.add_vocab_size(int(config["vocab_size"]))


def _rename_llama(name: str) -> str | None:
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    if layer is None:
        return _LLAMA_TENSORS.get(name)
    if layer[2] == "self_attn.rotary_emb.inv_freq":
        return ""
    renamed = _LLAMA_TENSORS.get(layer[2])
    return f"blk.{layer[1]}.{renamed}" if renamed else None


def _rename_bert(name: str) -> str | None:
    name = name.removeprefix("bert.")
    if name.startswith(("pooler.", "cls.")) or name == "embeddings.position_ids":
        return ""
    if (whole := _BERT_TENSORS.get(name)) is not None:
        return whole
    layer = re.fullmatch(r"(?:encoder\.layer\.(\d+)\.)?(.+)(\.weight|\.bias)", name)
    renamed = _BERT_TENSORS.get(layer[2]) if layer else None
    if layer is None or renamed is None:
        return None
    return f"blk.{layer[1]}.{renamed}{layer[3]}" if layer[1] else f"{renamed}{layer[3]}"


def _arrange_llama(name: str, values: Floats, config: dict[str, Any]) -> Floats:
    # llama.cpp rotates neighbouring pairs where Hugging Face rotates halves: interleave each head's rows.
    heads = int(config["num_attention_heads"])
    if name.endswith("attn_k.weight"):
        heads = int(config.get("num_key_value_heads") or heads)
    elif not name.endswith("attn_q.weight"):
        return values
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _arrange_bert(name: str, values: Floats, config: dict[str, Any]) -> Floats:
    return values[: int(config["max_position_embeddings"])] if name == "position_embd.weight" else values


def _converted(
    tensors: dict[str, StoredTensor], family: _Family, config: dict[str, Any]
) -> Iterator[tuple[str, Floats]]:
    for name, tensor in tensors.items():
        renamed = family.rename(name)
        if renamed is None:
            raise UnusableModel(f"tensor {name!r} belongs to no {family.architecture} model that this engine knows")
        tied_twice = renamed == "output.weight" and bool(config.get("tie_word_embeddings"))
        if renamed and not tied_twice:
            yield renamed, family.arrange(renamed, tensor.read(), config)


def _add_tensor(writer: GGUFWriter, name: str, values: Floats, precision: Precision) -> None:
    kind = _QUANTISED[precision]
    # Norms and biases are read as float32, position and type embeddings may be added unquantised only.
    if values.ndim == 1 or name in ("position_embd.weight", "token_types.weight"):
        kind = GGMLQuantizationType.F32
    elif kind is GGMLQuantizationType.Q8_0 and values.shape[-1] % _Q8_BLOCK:
        kind = GGMLQuantizationType.F16
    stored = quantize(np.ascontiguousarray(values), kind)
    writer.add_tensor(name, stored, raw_dtype=kind)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    if vocabulary.model != "bert":
        writer.add_add_bos_token(vocabulary.add_bos)
        writer.add_add_eos_token(False)
    for role, add in {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
        "cls": writer.add_bos_token_id,
        "sep": writer.add_sep_token_id,
        "mask": writer.add_mask_token_id,
    }.items():
        if role in vocabulary.special:
            add(vocabulary.special[role])


def _add_sampling(writer: GGUFWriter, folder: Path) -> None:
    file = folder / "generation_config.json"
    declared = read_json(file) if file.is_file() else {}
    if not declared.get("do_sample"):
        return
    for name, add in {
        "temperature": writer.add_sampling_temp,
        "top_p": writer.add_sampling_top_p,
        "top_k": writer.add_sampling_top_k,
        "repetition_penalty": writer.add_sampling_penalty_repeat,
    }.items():
        if declared.get(name) is not None:
            add(declared[name])


def _add_template(writer: GGUFWriter, folder: Path) -> None:
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        writer.add_chat_template(file.read_text(encoding="utf-8"))
    elif config.is_file() and isinstance(template := read_json(config).get("chat_template"), str):
        writer.add_chat_template(template)
