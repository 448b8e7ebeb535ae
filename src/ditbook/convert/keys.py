"""What every layout shares: the check of its keys, and queries, keys and values as one map or as three."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: str) -> None:
    """Compare the keys and shapes of a state dict with those of a model.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key.
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
