"""DiT weights as others store them: the official layout (292 keys for XL) and the one of diffusers.

The names are facts about files; none of that code is used here. `D` width, `C` channels, `p` side of a patch.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from ditbook.convert.keys import check, join_qkv, plain, read_folder, split_qkv
from ditbook.models.dit import DiT, DiTConfig

OFFICIAL = {  # ours → official, outside and inside a block
    "patch_embed": "x_embedder.proj",
    "time_embed.mlp": "t_embedder.mlp",
    "label_embed.table": "y_embedder.embedding_table",
    "final.modulation": "final_layer.adaLN_modulation.1",
    "final.linear": "final_layer.linear",
    "modulation": "adaLN_modulation.1",
}

CONFIG = {  # fields of ours → of diffusers' config.json
    "heads": "num_attention_heads",
    "channels": "in_channels",
    "out_channels": "out_channels",
    "depth": "num_layers",
    "patch": "patch_size",
    "size": "sample_size",
    "num_classes": "num_embeds_ada_norm",
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


def load_official(model: DiT, state: Mapping[str, Any]) -> None:
    """Load a state dict, or a checkpoint that holds one, in the official layout into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key, or says that the position table differs.
    """
    state, wanted = plain(state), to_official(model)
    check(state, wanted, "official")
    table = wanted["pos_embed"].to(state["pos_embed"])  # rounded as the file is, and where it is
    if (state["pos_embed"].float() - table.float()).abs().max() > 1e-4:
        raise ValueError("official layout: 'pos_embed' is not the sine–cosine table of this grid")
    ours = {key: state[_official_name(key)] for key in model.state_dict()}
    ours["patch_embed.weight"] = rearrange(ours["patch_embed.weight"], "d c p q -> d (p q c)")
    model.load_state_dict(ours)


RENAMED = (  # ours → diffusers; the embedders stand in every block
    (r"^time_embed\.mlp\.0\.", r"norm1.emb.timestep_embedder.linear_1."),
    (r"^time_embed\.mlp\.2\.", r"norm1.emb.timestep_embedder.linear_2."),
    (r"^label_embed\.table\.", r"norm1.emb.class_embedder.embedding_table."),
    (r"^patch_embed\.", r"pos_embed.proj."),
    (r"^final\.modulation\.", r"proj_out_1."),
    (r"^final\.linear\.", r"proj_out_2."),
    (r"^blocks\.(\d+)\.", r"transformer_blocks.\1."),
    (r"\.attn\.qkv\.", r".attn1.to_qkv."),
    (r"\.attn\.proj\.", r".attn1.to_out.0."),
    (r"\.mlp\.fc1\.", r".ff.net.0.proj."),
    (r"\.mlp\.fc2\.", r".ff.net.2."),
    (r"\.modulation\.", r".norm1.linear."),
)


def _diffusers_names(ours: str, depth: int) -> list[str]:
    """The key of a value in diffusers' layout; of an embedder, those of its copies in all blocks."""
    for pattern, name in RENAMED:
        ours = re.sub(pattern, name, ours)
    return [f"transformer_blocks.{i}.{ours}" for i in range(depth)] if ours.startswith("norm1.emb.") else [ours]


def to_diffusers(model: DiT) -> dict[str, Tensor]:
    """Write the layout of diffusers' `DiTTransformer2DModel`: embedders copied into every block, q, k and v apart.

    Two things in that library differ from the official model and are not in the file: the timestep frequencies are
    spaced by 1/127 instead of 1/128, and the second LayerNorm of a block has ε = 1e-5 instead of 1e-6.

    Raises:
        ValueError: the blocks are not adaLN-Zero.
    """
    _checked(model.config)
    depth = model.config.depth
    state = {name: value for key, value in model.state_dict().items() for name in _diffusers_names(key, depth)}
    state["pos_embed.proj.weight"] = _to_conv(state["pos_embed.proj.weight"], model.config)
    return split_qkv(state)


def load_diffusers(model: DiT, state: Mapping[str, Any]) -> None:
    """Load a state dict in diffusers' layout into `model`, in place.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key, or the first block whose copy of the
            embedders differs from that of block 0 (such a file has no equivalent here).
    """
    state = {key: value for key, value in plain(state).items() if key != "pos_embed.pos_embed"}
    check(state, to_diffusers(model), "diffusers")
    joined, ours = join_qkv(state), {}
    for key in model.state_dict():
        names = _diffusers_names(key, model.config.depth)
        for i, name in enumerate(names):
            if not torch.equal(joined[name], joined[names[0]]):
                part = name.split(".emb.")[1].rsplit(".", 1)[0]
                raise ValueError(f"diffusers layout: {part!r} of block {i} differs from that of block 0")
        ours[key] = joined[names[0]]
    ours["patch_embed.weight"] = rearrange(ours["patch_embed.weight"], "d c p q -> d (p q c)")
    model.load_state_dict(ours)


def save_official(model: DiT, path: str | Path) -> None:
    """Write a safetensors file in the official layout, as a whole or not at all.

    Raises:
        ValueError: as for `to_official`.
    """
    _save(to_official(model), Path(path))


def diffusers_config(config: DiTConfig) -> dict[str, Any]:
    """The arguments of diffusers' `DiTTransformer2DModel` for a model of the same size."""
    fields = {theirs: getattr(config, ours) for ours, theirs in CONFIG.items()}
    return fields | {"attention_head_dim": config.width // config.heads}


def to_folder(model: DiT, folder: str | Path) -> None:
    """Write a folder that the `from_pretrained` of diffusers' `DiTTransformer2DModel` reads.

    Raises:
        ValueError: as for `to_diffusers`.
    """
    state, folder = to_diffusers(model), Path(folder)
    config = {"_class_name": "DiTTransformer2DModel"} | diffusers_config(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    _save(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def from_folder(folder: str | Path) -> DiT:
    """The DiT of a folder in diffusers' layout, as `to_folder` writes it and `facebook/DiT-XL-2-256` has it.

    Raises:
        ValueError: as for `keys.read_folder` and `load_diffusers`.
    """
    fields, state = read_folder(folder, CONFIG | {"width": "attention_head_dim"})
    for name in ("width", "heads", "channels", "out_channels"):
        if type(fields[name]) is not int:
            raise ValueError(f"{folder}: {CONFIG.get(name, 'attention_head_dim')} {fields[name]!r} is no whole number")
    width, learn_sigma = fields.pop("width") * fields["heads"], fields.pop("out_channels") == 2 * fields["channels"]
    model = DiT(DiTConfig(width=width, learn_sigma=learn_sigma, **fields))
    load_diffusers(model, state)
    return model


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        save_file({key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
