"""What every layout shares: the way out of a checkpoint, the check of its keys, and q, k, v as one map or as three."""

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CONTAINERS = ("ema", "state_dict", "model")  # of a training checkpoint; samples are made with the averaged weights
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile


def plain(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict itself: taken out of a training checkpoint, and without the prefixes of wrapped models.

    Args:
        state: a state dict; or a checkpoint that holds one as `ema`, `state_dict` or `model`, the first of these.
    """
    for name in CONTAINERS:
        if isinstance(state.get(name), Mapping):
            return plain(state[name])
    for prefix in WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            return plain({key.removeprefix(prefix): value for key, value in state.items()})
    return dict(state)


def check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: str) -> None:
    """Compare the keys and shapes of a state dict with those of a model.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key, or one whose values are not finite.
    """
    for key in wanted:
        if key not in found:
            raise ValueError(f"not these weights in the {layout} layout: key {key!r} is missing")
    for key in found:
        if key not in wanted:
            raise ValueError(f"not these weights in the {layout} layout: key {key!r} is unexpected")
    for key, value in wanted.items():
        if found[key].shape != value.shape:
            raise ValueError(
                f"{layout} layout: {key!r} has shape {tuple(found[key].shape)}, this model needs {tuple(value.shape)}"
            )
        if not found[key].isfinite().all():
            raise ValueError(f"{layout} layout: {key!r} holds values that are not finite; the file is damaged")


def split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put three keys, `to_q`, `to_k` and `to_v`, in the place of each `to_qkv`."""
    apart = {}
    for key, value in state.items():
        if ".to_qkv." in key:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                apart[key.replace(".to_qkv.", f".to_{letter}.")] = part
        else:
            apart[key] = value
    return apart


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_qkv`."""
    joined = {}
    for key, value in state.items():
        if ".to_q." in key:
            parts = [state[key.replace(".to_q.", f".to_{letter}.")] for letter in "qkv"]
            joined[key.replace(".to_q.", ".to_qkv.")] = torch.cat(parts)
        elif ".to_k." not in key and ".to_v." not in key:
            joined[key] = value
    return joined


def read_folder(
    folder: str | Path, fields: Mapping[str, str], defaults: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model of diffusers as it stands on a disk: `config.json`, and weights in a file beside it.

    Args:
        folder: holds `diffusion_pytorch_model.safetensors`, or the older `.bin`, of which only tensors are read.
        fields: which of our fields has which name in the config.
        defaults: values of names that a config may lack.

    Returns:
        These fields of ours, and the state dict.

    Raises:
        ValueError: a file or a field is missing, or a file is damaged.
    """
    folder = Path(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = {**(defaults or {}), **config}
        given = {ours: config[theirs] for ours, theirs in fields.items()}
        older = weights.with_suffix(".bin")
        if older.exists() and not weights.exists():
            return given, torch.load(older, map_location="cpu", weights_only=True)
        return given, load_file(weights)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"{folder} holds no such model in diffusers' layout: {error}") from error
