"""Checks that every model makes of its config and of its input: wrong ones raise ValueError.

Letters: `B` batch, `C` channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

KINDS: dict[Any, tuple[Any, str]] = {  # annotation of a field: what its value may be, and in words
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "a text"),
    tuple: (list | tuple, "a list"),
    Sequence: (list | tuple, "a list"),
    dict: (Mapping, "a table"),
}


def check_types(config: Any) -> None:
    """Raise ValueError where a field of a dataclass is not of its annotated type; whole numbers serve as numbers."""
    for field in fields_of(config):
        union = get_origin(field.type) in (Union, UnionType)
        parts = get_args(field.type) if union else (field.type,)
        value = getattr(config, field.name)
        if not any(_is_of(value, part) for part in parts):
            wanted = " or ".join(_in_words(part) for part in parts if part is not type(None))
            raise ValueError(f"{field.name} {value!r} must be {wanted}")


def _is_of(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    allowed = type(None) if kind is type(None) else KINDS[get_origin(kind) or kind][0]
    if isinstance(value, bool) or (isinstance(value, float) and math.isnan(value)):
        return allowed is type(value) is bool
    return isinstance(value, allowed)


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return KINDS[get_origin(kind) or kind][1]


def check_positive(config: Any, *fields: str) -> None:
    """Raise ValueError where one of the named fields of a config is not a whole number of at least 1."""
    for field in fields:
        check_whole(field, getattr(config, field), 1)


def check_whole(field: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ValueError where `value` of `field` is not a whole number of at least `low` and at most `high`."""
    if type(value) is not int or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"{field} {value!r} must be a whole number, {limits}")


def check_widths(config: Any, field: str) -> None:
    """Make a tuple of a config's field; raise ValueError where it is no list of whole numbers of at least 1."""
    value = getattr(config, field)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{field} {value!r} must be a list of whole numbers, one for each level, one level at least")
    for number in value:
        check_whole(f"{field}:", number, 1)
    object.__setattr__(config, field, tuple(value))


def check_number(config: Any, field: str, *, low: float = 0.0, high: float = math.inf, above: bool = False) -> None:
    """Raise ValueError where a field is no finite number from `low` (with `above`, above `low`) to `high`."""
    value = getattr(config, field)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (above and value == low):
        limits = f"{'above' if above else 'at least'} {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ValueError(f"{field} {value!r} must be a number, {limits}")


def check_choice(config: Any, field: str, choices: Any, what: str | None = None) -> None:
    """Raise ValueError where a field is none of the names in `choices`; it is called `what`, or by its name."""
    value = getattr(config, field)
    if value not in tuple(choices):
        raise ValueError(f"no {what or field} {value!r}; there are {', '.join(choices)}")


def check_truth(config: Any, *fields: str) -> None:
    """Raise ValueError where one of the named fields of a config is neither True nor False."""
    for field in fields:
        if not isinstance(value := getattr(config, field), bool):
            raise ValueError(f"{field} {value!r} must be true or false")


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


def check_pairs(source: Tensor, target: Tensor) -> None:
    """Raise ValueError unless there is one target (B, T) for each source (B, S)."""
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target):
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"sources and targets of shapes {shapes}; this model takes (batch, S) and (batch, T)")


def check_rows(x: Tensor, batch: int, width: int | None, what: str) -> None:
    """Raise ValueError unless `x` has a row for each sample, (B, `width`), or (B, any) where `width` is None."""
    if x.ndim != 2 or len(x) != batch or width not in (None, x.shape[1]):
        wanted = f"({batch}, {'T' if width is None else width})"
        raise ValueError(f"{what} of shape {tuple(x.shape)}; this model takes one row for each sample: {wanted}")
