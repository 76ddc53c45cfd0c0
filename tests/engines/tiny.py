"""Makes a small random model in the layout of `brise`: enough to test everything but the quality of answers."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = (
    "<pad>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[PREFIX]",
    "[SUFFIX]",
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}[SYSTEM_PROMPT]{{ message['content'] }}[/SYSTEM_PROMPT]"
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% elif message['role'] == 'user' %}[INST]{{ message['content'] }}[/INST]"
    "{% elif message['role'] == 'tool' %}[TOOL_RESULTS]{{ message['content'] }}[/TOOL_RESULTS]"
    "{% elif message['content'] == 'refuse' %}{{ raise_exception('no') }}"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
_TEXT = (
    "the quick brown fox jumps over the lazy dog and the weather in Paris is fine today",
    '{"name": "get_weather", "arguments": {"city": "Paris"}} [1, 2, 3] true false null',
    "def add(left, right):\n    return left + right\n",
    "Élégance, naïveté, Straße, Łódź, 東京, мир, שלום, 🙂 12345 67",
)
VOCABULARY = 512
CONTEXT = 512
CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "sliding_window": None,
    "tie_word_embeddings": True,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_model(folder: Path, pattern: str | None = LLAMA_3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, pattern)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    save_file(tensors(), folder / "model.safetensors")
    return folder


def write_tokenizer(folder: Path, pattern: str | None = LLAMA_3) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern is not None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator(_TEXT * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def tensors(seed: int = 7) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    width, inner, head, heads, groups = 64, 96, 16, 4, 2

    def matrix(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.15).astype(np.float16)

    made = {"model.embed_tokens.weight": matrix(VOCABULARY, width), "model.norm.weight": np.ones(width, np.float16)}
    for layer in range(2):
        start = f"model.layers.{layer}."
        made |= {
            start + "input_layernorm.weight": np.ones(width, np.float16),
            start + "post_attention_layernorm.weight": np.ones(width, np.float16),
            start + "self_attn.q_proj.weight": matrix(heads * head, width),
            start + "self_attn.k_proj.weight": matrix(groups * head, width),
            start + "self_attn.v_proj.weight": matrix(groups * head, width),
            start + "self_attn.o_proj.weight": matrix(width, heads * head),
            start + "mlp.gate_proj.weight": matrix(inner, width),
            start + "mlp.up_proj.weight": matrix(inner, width),
            start + "mlp.down_proj.weight": matrix(width, inner),
        }
    return made
