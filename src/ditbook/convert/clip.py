"""CLIP weights in OpenAI's layout."""

import re
from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor

from ditbook.convert.keys import check, plain
from ditbook.models.clip import CLIP

OUTSIDE = {  # ours → OpenAI's
    "class_token": "visual.class_embedding",
    "positions": "visual.positional_embedding",
    "norm_before": "visual.ln_pre",
    "norm_after": "visual.ln_post",
    "embed": "token_embedding",
    "text_positions": "positional_embedding",
    "text_norm": "ln_final",
    "log_scale": "logit_scale",
}
INSIDE = {  # of a layer
    "attention.qkv.weight": "attn.in_proj_weight",
    "attention.qkv.bias": "attn.in_proj_bias",
    "attention.proj": "attn.out_proj",
    "norms.0": "ln_1",
    "norms.1": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _openai_name(ours: str) -> str:
    if match := re.fullmatch(r"(text_)?layers\.(\d+)\.(.+)", ours):
        tower = "transformer" if match[1] else "visual.transformer"
        inside = next(theirs + match[3][len(name) :] for name, theirs in INSIDE.items() if match[3].startswith(name))
        return f"{tower}.resblocks.{match[2]}.{inside}"
    special = {
        "patch_embed.weight": "visual.conv1.weight",
        "project.weight": "visual.proj",
        "text_project.weight": "text_projection",
    }
    name, dot, kind = ours.partition(".")
    return special.get(ours) or OUTSIDE[name] + dot + kind


def to_openai(model: CLIP) -> dict[str, Tensor]:
    """Write OpenAI's layout: the patch embedding as a convolution, projections the other way round."""
    state = {_openai_name(key): value for key, value in model.state_dict().items()}
    p = model.config.patch
    state["visual.conv1.weight"] = rearrange(state["visual.conv1.weight"], "d (p q c) -> d c p q", p=p, q=p)
    for name in ("visual.proj", "text_projection"):
        state[name] = state[name].T
    return state


def load_openai(model: CLIP, state: Mapping[str, Any]) -> None:
    """Load a state dict in OpenAI's layout into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key.
    """
    described = ("input_resolution", "context_length", "vocab_size")  # numbers that released files carry besides
    state = {key: value for key, value in plain(state).items() if key not in described}
    check(state, to_openai(model), "OpenAI")
    ours = {key: state[_openai_name(key)].float() for key in model.state_dict()}
    ours["patch_embed.weight"] = rearrange(ours["patch_embed.weight"], "d c p q -> d (p q c)")
    for name in ("project.weight", "text_project.weight"):
        ours[name] = ours[name].T
    model.load_state_dict(ours)
