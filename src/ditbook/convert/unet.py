"""U-Net weights in diffusers' layout, that of `UNet2DModel`."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ditbook.convert.keys import check, join_qkv, plain, split_qkv
from ditbook.models.unet import UNet

RENAMED = (  # ours → diffusers
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)", r"\1_blocks.\2.resnets.\3"),
    (r"^(down|up)\.(\d+)\.change", r"\1_blocks.\2.\1samplers.0.conv"),
    (r"^middle_1\.", r"mid_block.resnets.0."),
    (r"^middle_2\.", r"mid_block.resnets.1."),
    (r"^middle_attn\.norm\.", r"mid_block.attentions.0.group_norm."),
    (r"^middle_attn\.attn\.proj\.", r"mid_block.attentions.0.to_out.0."),
    (r"^middle_attn\.attn\.qkv\.", r"mid_block.attentions.0.to_qkv."),
    (r"\.time\.", r".time_emb_proj."),
    (r"\.shortcut\.", r".conv_shortcut."),
    (r"^time_embed\.mlp\.0\.", r"time_embedding.linear_1."),
    (r"^time_embed\.mlp\.2\.", r"time_embedding.linear_2."),
    (r"^level_embed\.mlp\.0\.", r"class_embedding.linear_1."),
    (r"^level_embed\.mlp\.2\.", r"class_embedding.linear_2."),
    (r"^norm_out\.", r"conv_norm_out."),
)


def _diffusers_name(ours: str) -> str:
    for pattern, name in RENAMED:
        ours = re.sub(pattern, name, ours)
    return ours


def to_diffusers(model: UNet) -> dict[str, Tensor]:
    """Write the layout of diffusers' `UNet2DModel`: queries, keys and values apart.

    That library's timestep embedding has as many frequencies as the finest level has channels, and ours 256: its
    `time_proj` and `time_embedding` must be made for 256 before it takes these weights. Of an `Upsampler` the level of
    noise is there a class of the type "timestep".
    """
    return split_qkv({_diffusers_name(key): value for key, value in model.state_dict().items()})


def load_diffusers(model: UNet, state: Mapping[str, Any]) -> None:
    """Load a state dict in diffusers' layout into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key.
    """
    state = plain(state)
    check(state, to_diffusers(model), "diffusers")
    joined = join_qkv(state)
    model.load_state_dict({key: joined[_diffusers_name(key)] for key in model.state_dict()})
