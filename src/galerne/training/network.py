"""The model and its optimisers, built from a recipe. The architecture is Mistral's, as transformers has it."""

# torch's own annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM

from galerne.kernel.errors import NotFound
from galerne.training.checkpoint import load_checkpoint
from galerne.training.recipe import ModelShape, Optimiser
from galerne.training.tokens import BOS, EOS, PAD, token_id

__all__ = [
    "SETTINGS",
    "build_model",
    "build_optimisers",
    "learnt_loss",
    "model_settings",
    "read_apart",
    "restore_model",
    "set_rate",
    "weight_count",
]

SETTINGS = "model.json"
_APART = "galerne_apart"


def model_settings(shape: ModelShape, vocabulary: int) -> dict[str, Any]:
    """The fields of the model's `config.json` that the recipe decides."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "bos_token_id": token_id(BOS),
        "eos_token_id": token_id(EOS),
        "pad_token_id": token_id(PAD),
    }


def build_model(settings: dict[str, Any], seed: int) -> MistralForCausalLM:
    """A model with random weights drawn from `seed`, in float32."""
    torch.manual_seed(seed)
    given: dict[str, Any] = {**settings, "attn_implementation": _APART, "dtype": "float32"}
    return MistralForCausalLM(MistralConfig(**given))


def restore_model(folder: Path) -> MistralForCausalLM:
    """The model of a run's last checkpoint, in float32. Raises `NotFound` when the folder is no run or has none yet."""
    state = load_checkpoint(folder)
    if state is None or not (folder / SETTINGS).is_file():
        raise NotFound(
            f"{folder} has no checkpoint of a training run yet; wait for its first one, or name another folder."
        )
    model = build_model(json.loads((folder / SETTINGS).read_text(encoding="utf-8")), seed=0)
    model.load_state_dict(state["model"])
    return model


def build_optimisers(model: nn.Module, plan: Optimiser) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else, in this order."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    return [
        torch.optim.Muon(matrices, lr=plan.muon_rate, momentum=plan.momentum, weight_decay=plan.weight_decay),
        torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def set_rate(optimisers: list[torch.optim.Optimizer], plan: Optimiser, share: float) -> None:
    """Set both learning rates to `share` of the recipe's."""
    for optimiser, rate in zip(optimisers, (plan.muon_rate, plan.adam_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * share


def learnt_loss(
    model: MistralForCausalLM, ids: torch.Tensor, learnt: torch.Tensor, starts: torch.Tensor | None = None
) -> torch.Tensor:
    """The summed cross-entropy, in nats, of the tokens of `ids` (batch, length) that `learnt` marks; a scalar.

    With `starts` each sample of a window is read as if it stood alone. The vocabulary's logits are computed only where
    they count, which in tuning is a fraction of the positions.
    """
    inputs = ids[:, :-1]
    wanted = learnt[:, 1:]
    if starts is None:
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    else:
        hidden = read_apart(model, inputs.reshape(1, -1), _lengths(starts[:, :-1])).view(*inputs.shape, -1)
    logits = model.lm_head(hidden[wanted])
    return nn.functional.cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="sum")


def read_apart(model: MistralForCausalLM, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Hidden states (1, length, width) of `ids` (1, length), read as samples of `lengths` that see nothing else."""
    positions = torch.cat([torch.arange(length) for length in lengths]).to(ids.device)
    return model.model(
        input_ids=ids, position_ids=positions[None], sample_lengths=lengths, use_cache=False
    ).last_hidden_state


def _lengths(starts: torch.Tensor) -> list[int]:
    begin = starts.clone()
    begin[:, 0] = True
    edges = begin.flatten().nonzero().flatten()
    return torch.diff(edges, append=torch.tensor([begin.numel()], device=edges.device)).tolist()


def _attend_apart(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    # Sample by sample: the work is the sum of the squares of their lengths, not the square of the window's.
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    lengths: list[int] = options.get("sample_lengths") or [query.shape[2]]
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    out = [nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in parts]
    return torch.cat(out, dim=2).transpose(1, 2), None


AttentionInterface.register(_APART, _attend_apart)


def weight_count(model: nn.Module) -> int:
    """How many weights the model has; tied ones count once."""
    return sum(p.numel() for p in model.parameters())
