"""GPT-2 weights in the layout of OpenAI's release, as transformers stores them.

The four linear maps of a layer are stored as (in, out), transposed: "Conv1D" in OpenAI's code. The output matrix is
the embedding; files may hold it a second time, as `lm_head.weight`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ditbook.convert.keys import check, plain, require
from ditbook.models.gpt import GPT, GPTConfig

OUTSIDE = {"tokens": "wte", "positions": "wpe", "norm": "ln_f"}  # ours → theirs
INSIDE = {  # of a layer
    "norms.0": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "norms.1": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
PREFIX = "transformer."  # of transformers' model with an output; OpenAI's file has none
HEAD = "lm_head.weight"  # the output matrix of that model
BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, in older files


def config(described: Mapping[str, Any]) -> GPTConfig:
    """The config that a `config.json` of transformers describes.

    Raises:
        ValueError: a size is missing; the model is no GPT-2, or one with an activation, an epsilon or an MLP that ours
            lacks.
    """
    require(described, "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    wanted = {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
    for name, value in wanted.items():
        if described.get(name) != value:
            raise ValueError(f"{name} is {described.get(name)!r}; this converter reads models with {value!r}")
    ours = GPTConfig(
        vocabulary=described["vocab_size"],
        longest=described["n_positions"],
        width=described["n_embd"],
        depth=described["n_layer"],
        heads=described["n_head"],
    )
    if described.get("n_inner") not in (None, 4 * ours.width):
        raise ValueError(f"n_inner is {described['n_inner']}; this converter reads models with {4 * ours.width}")
    return ours


def _gpt2_name(ours: str) -> str:
    if not ours.startswith("layers."):
        name, kind = ours.split(".")
        return f"{PREFIX}{OUTSIDE[name]}.{kind}"
    _, layer, inside = ours.split(".", 2)
    name, kind = inside.rsplit(".", 1)
    return f"{PREFIX}h.{layer}.{INSIDE[name]}.{kind}"


def _transposed(name: str, value: Tensor) -> Tensor:
    return value.T if ".c_" in name and value.ndim == 2 else value


def to_gpt2(model: GPT) -> dict[str, Tensor]:
    """Write the layout of transformers' `GPT2LMHeadModel`, without the output matrix, which the embedding is.

    Raises:
        ValueError: a post-norm model, which is no GPT-2.
    """
    if not model.config.pre_norm:
        raise ValueError("GPT-2 has its norms before the sublayers; this model has pre_norm False")
    state = {_gpt2_name(key): value for key, value in model.state_dict().items()}
    return {name: _transposed(name, value).contiguous() for name, value in state.items()}


def load_gpt2(model: GPT, state: Mapping[str, Any]) -> None:
    """Load a state dict in GPT-2's layout into `model`, in place; with or without the prefix and the output matrix.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key; or the output matrix is not the embedding.
    """
    state = {key: value for key, value in plain(state).items() if not key.endswith(BUFFERS)}
    state = {key if key.startswith((PREFIX, HEAD)) else PREFIX + key: value for key, value in state.items()}
    wanted, embedding = to_gpt2(model), f"{PREFIX}wte.weight"
    check(state, wanted | ({HEAD: wanted[embedding]} if HEAD in state else {}), "GPT-2")
    if HEAD in state and not state[HEAD].float().equal(state[embedding].float()):
        raise ValueError("GPT-2 layout: 'lm_head.weight' is not the embedding 'wte.weight'; this model ties the two")
    ours = {key: _gpt2_name(key) for key in model.state_dict()}
    model.load_state_dict({key: _transposed(name, state[name]).float() for key, name in ours.items()})
