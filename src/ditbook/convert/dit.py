"""DiT weights as others store them: the official layout (292 keys for XL) and the one of diffusers.

The names are facts about files; none of that code is used here. `D` width, `C` channels, `p` side of a patch.
"""

import re
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from ditbook.convert.keys import check
from ditbook.models.dit import DiT, DiTConfig

OFFICIAL = {  # ours → official, outside and inside a block
    "patch_embed": "x_embedder.proj",
    "time_embed.mlp": "t_embedder.mlp",
    "label_embed.table": "y_embedder.embedding_table",
    "final.modulation": "final_layer.adaLN_modulation.1",
    "final.linear": "final_layer.linear",
    "modulation": "adaLN_modulation.1",
}


def _official_name(ours: str) -> str:
    if match := re.fullmatch(r"(blocks\.\d+)\.modulation\.(\w+)", ours):
        return f"{match[1]}.{OFFICIAL['modulation']}.{match[2]}"
    for name, official in OFFICIAL.items():
        if ours.startswith(name + "."):
            return official + ours[len(name) :]
    return ours


def _checked(config: DiTConfig) -> None:
    if config.block != "adaLN-Zero":
        raise ValueError(f"a DiT with {config.block} blocks has no such layout: only adaLN-Zero was ever published")


def _to_conv(weight: Tensor, config: DiTConfig) -> Tensor:
    return rearrange(weight, "d (p q c) -> d c p q", p=config.patch, q=config.patch)


def to_official(model: DiT) -> dict[str, Tensor]:
    """Write the official layout: patch embedding as a convolution, position table as (1, T, D).

    Raises:
        ValueError: the blocks are not adaLN-Zero.
    """
    _checked(model.config)
    state = {_official_name(key): value for key, value in model.state_dict().items()}
    state["x_embedder.proj.weight"] = _to_conv(state["x_embedder.proj.weight"], model.config)
    state["pos_embed"] = model.pos_embed[None]
    return state


def load_official(model: DiT, state: Mapping[str, Tensor]) -> None:
    """Load a state dict in the official layout into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key, or says that the position table differs.
    """
    wanted = to_official(model)
    check(state, wanted, "official")
    if (state["pos_embed"] - wanted["pos_embed"]).abs().max() > 1e-4:
        raise ValueError("official layout: 'pos_embed' is not the sine–cosine table of this grid")
    ours = {key: state[_official_name(key)] for key in model.state_dict()}
    ours["patch_embed.weight"] = rearrange(ours["patch_embed.weight"], "d c p q -> d (p q c)")
    model.load_state_dict(ours)


EMBEDDERS = {
    "time_embed.mlp.0": "timestep_embedder.linear_1",
    "time_embed.mlp.2": "timestep_embedder.linear_2",
    "label_embed.table": "class_embedder.embedding_table",
}
BLOCK = {"attn.proj": "attn1.to_out.0", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2", "modulation": "norm1.linear"}


def to_diffusers(model: DiT) -> dict[str, Tensor]:
    """Write the layout of diffusers' `DiTTransformer2DModel`: embedders copied into every block, q, k and v apart.

    Two things in that library differ from the official model and are not in the file: the timestep frequencies are
    spaced by 1/127 instead of 1/128, and the second LayerNorm of a block has ε = 1e-5 instead of 1e-6.

    Raises:
        ValueError: the blocks are not adaLN-Zero.
    """
    _checked(model.config)
    ours = model.state_dict()
    state: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        state[f"pos_embed.proj.{kind}"] = ours[f"patch_embed.{kind}"]
        state[f"proj_out_1.{kind}"] = ours[f"final.modulation.{kind}"]
        state[f"proj_out_2.{kind}"] = ours[f"final.linear.{kind}"]
    state["pos_embed.proj.weight"] = _to_conv(ours["patch_embed.weight"], model.config)
    for i in range(model.config.depth):
        block = f"transformer_blocks.{i}"
        for kind in ("weight", "bias"):
            for name, theirs in EMBEDDERS.items():
                if f"{name}.{kind}" in ours:
                    state[f"{block}.norm1.emb.{theirs}.{kind}"] = ours[f"{name}.{kind}"]
            for name, theirs in BLOCK.items():
                state[f"{block}.{theirs}.{kind}"] = ours[f"blocks.{i}.{name}.{kind}"]
            for letter, part in zip("qkv", ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                state[f"{block}.attn1.to_{letter}.{kind}"] = part
    return state


def load_diffusers(model: DiT, state: Mapping[str, Tensor]) -> None:
    """Load a state dict in diffusers' layout into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key, or the first block whose copy of the
            embedders differs from that of block 0 (such a file has no equivalent here).
    """
    state = {key: value for key, value in state.items() if key != "pos_embed.pos_embed"}
    check(state, to_diffusers(model), "diffusers")
    ours = {}
    for key in model.state_dict():
        name, kind = key.rsplit(".", 1)
        if name in EMBEDDERS:
            copies = [
                state[f"transformer_blocks.{i}.norm1.emb.{EMBEDDERS[name]}.{kind}"] for i in range(model.config.depth)
            ]
            for i, copy in enumerate(copies):
                if not torch.equal(copy, copies[0]):
                    raise ValueError(f"diffusers layout: {EMBEDDERS[name]!r} of block {i} differs from that of block 0")
            ours[key] = copies[0]
        elif match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
            block = f"transformer_blocks.{match[1]}"
            if match[2] == "attn.qkv":
                ours[key] = torch.cat([state[f"{block}.attn1.to_{letter}.{kind}"] for letter in "qkv"])
            else:
                ours[key] = state[f"{block}.{BLOCK[match[2]]}.{kind}"]
        else:
            theirs = {"patch_embed": "pos_embed.proj", "final.modulation": "proj_out_1", "final.linear": "proj_out_2"}
            ours[key] = state[f"{theirs[name]}.{kind}"]
    ours["patch_embed.weight"] = rearrange(ours["patch_embed.weight"], "d c p q -> d (p q c)")
    model.load_state_dict(ours)
