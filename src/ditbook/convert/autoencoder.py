"""Autoencoder weights in diffusers' layout, that of Stable Diffusion."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ditbook.convert.keys import check, join_qkv, plain, read_folder, split_qkv
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig

RENAMED = (  # ours → diffusers
    (r"^encoder\.levels\.(\d+)\.blocks\.(\d+)", r"encoder.down_blocks.\1.resnets.\2"),
    (r"^decoder\.levels\.(\d+)\.blocks\.(\d+)", r"decoder.up_blocks.\1.resnets.\2"),
    (r"^encoder\.levels\.(\d+)\.resize", r"encoder.down_blocks.\1.downsamplers.0.conv"),
    (r"^decoder\.levels\.(\d+)\.resize", r"decoder.up_blocks.\1.upsamplers.0.conv"),
    (r"\.shortcut\.", r".conv_shortcut."),
    (r"\.middle\.first\.", r".mid_block.resnets.0."),
    (r"\.middle\.last\.", r".mid_block.resnets.1."),
    (r"\.middle\.attention\.norm\.", r".mid_block.attentions.0.group_norm."),
    (r"\.middle\.attention\.attn\.proj\.", r".mid_block.attentions.0.to_out.0."),
    (r"\.middle\.attention\.attn\.qkv\.", r".mid_block.attentions.0.to_qkv."),
    (r"\.norm_out\.", r".conv_norm_out."),
)
CONFIG = {  # fields of ours → of diffusers' config.json
    "channels": "in_channels",
    "latent_channels": "latent_channels",
    "widths": "block_out_channels",
    "blocks": "layers_per_block",
    "groups": "norm_num_groups",
    "scale": "scaling_factor",
}
DEFAULTS = {"scaling_factor": 0.18215}  # of diffusers, where older files lack the field
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of files before 2023


def _diffusers_name(ours: str) -> str:
    for pattern, name in RENAMED:
        ours = re.sub(pattern, name, ours)
    return ours


def to_diffusers(model: Autoencoder) -> dict[str, Tensor]:
    """Write the layout of diffusers' `AutoencoderKL`: queries, keys and values apart."""
    return split_qkv({_diffusers_name(key): value for key, value in model.state_dict().items()})


def load_diffusers(model: Autoencoder, state: Mapping[str, Any]) -> None:
    """Load a state dict in diffusers' layout, that of Stable Diffusion's autoencoder, into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key.
    """
    state = {re.sub(r"(attentions\.0\.)(query|key|value|proj_attn)\.", _newer, k): v for k, v in plain(state).items()}
    check(state, to_diffusers(model), "diffusers")
    joined = join_qkv(state)
    model.load_state_dict({key: joined[_diffusers_name(key)].float() for key in model.state_dict()})


def from_folder(folder: str | Path) -> Autoencoder:
    """The autoencoder of a folder in diffusers' layout: `config.json` and a file of weights beside it.

    A config without `scaling_factor`, such as that of stabilityai/sd-vae-ft-mse, has diffusers' default, 0.18215.

    Raises:
        ValueError: as for `keys.read_folder` and `load_diffusers`.
    """
    fields, state = read_folder(folder, CONFIG, DEFAULTS)
    model = Autoencoder(AutoencoderConfig(**fields))
    load_diffusers(model, state)
    return model


def _newer(match: re.Match[str]) -> str:
    return f"{match[1]}{OLDER[match[2]]}."
