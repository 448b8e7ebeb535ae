"""Checks that every model makes of its config and of its input: wrong ones raise ValueError.

Letters: `B` batch, `C` channels.
"""

from typing import Any

from torch import Tensor


def check_positive(config: Any, *fields: str) -> None:
    """Raise ValueError where one of the named fields of a config is not a whole number of at least 1."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{field} {value!r} must be a whole number, at least 1")


def check_multiple(field: str, value: int, by: str, divisor: int) -> None:
    """Raise ValueError where `value` of `field` is no multiple of `divisor`, which is called `by`."""
    if value % divisor:
        raise ValueError(f"{field} {value} is not divisible by {by} {divisor}; take a multiple of {divisor}")


def check_images(x: Tensor, channels: int, size: int) -> None:
    """Raise ValueError unless `x` holds floating-point images (B, C, size, size)."""
    check_floating(x)
    if x.ndim != 4 or x.shape[1:] != (channels, size, size):
        raise ValueError(f"images of shape {tuple(x.shape)}; this model takes (batch, {channels}, {size}, {size})")


def check_floating(x: Tensor) -> None:
    """Raise ValueError for images of whole numbers, as uint8."""
    if not x.is_floating_point():
        raise ValueError(
            f"images of type {x.dtype}; this model takes floating-point numbers in [-1, 1], shape (batch, channels, "
            "height, width): scale bytes by x / 127.5 - 1"
        )


def check_per_image(x: Tensor, batch: int, what: str) -> None:
    """Raise ValueError unless `x` holds one number for each image: (B,)."""
    if x.shape != (batch,):
        raise ValueError(f"{what} of shape {tuple(x.shape)}; this model takes one for each image: ({batch},)")
