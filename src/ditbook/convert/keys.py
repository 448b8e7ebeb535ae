"""Checks that every layout shares."""

from collections.abc import Mapping

from torch import Tensor


def check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: str) -> None:
    """Raise ValueError for the first missing, unexpected or misshapen key."""
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
