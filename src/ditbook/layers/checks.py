"""Checks that every model makes of its config and of its input: wrong ones raise ValueError.

Letters: `B` batch, `C` channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from ditbook import rng

KINDS: dict[Any, tuple[Any, str]] = {  # annotation of a field: what its value may be, and in words
    Any: (object, "anything"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "a text"),
    tuple: (list | tuple, "a list"),
    Sequence: (list | tuple, "a list"),
    dict: (Mapping, "a table"),
}


def check_types(config: Any) -> None:
    """Raise ValueError where a field of a dataclass is not of its annotated type; what a table holds is not checked.

    Whole numbers serve as numbers. NaN does not, nor do the whole numbers of NumPy, which no file of weights can hold.
    """
    hints = get_type_hints(type(config))
    for field in fields_of(config):
        kind, value = hints[field.name], getattr(config, field.name)
        if not _is_of(value, kind):
            raise ValueError(f"{field.name} {value!r} of type {type(value).__name__} must be {_in_words(kind)}")


def _is_of(value: Any, kind: Any) -> bool:
    plain, parts = get_origin(kind) or kind, get_args(kind)
    if plain in (Union, UnionType):
        return any(_is_of(value, part) for part in parts)
    if plain is Literal:
        return value in parts
    if isinstance(value, bool) and kind in (int, float):
        return False
    if isinstance(value, float) and math.isnan(value):
        return False
    if not isinstance(value, KINDS[plain][0] if plain in KINDS else plain):
        return False
    return plain not in (tuple, Sequence) or all(_is_of(item, part) for part in parts[:1] for item in value)


def _in_words(kind: Any) -> str:
    plain, parts = get_origin(kind) or kind, get_args(kind)
    if plain in (Union, UnionType):
        return " or ".join(_in_words(part) for part in parts if part is not NoneType)
    if plain is Literal:
        return "one of " + ", ".join(parts)
    words = KINDS[plain][1] if plain in KINDS else f"a {plain.__name__}"
    return f"{words}, each {_in_words(parts[0])}" if plain in (tuple, Sequence) and parts else words


def check_positive(config: Any, *fields: str) -> None:
    """Raise ValueError where one of the named fields is a number below 1; `check_types` sees to types, None passes."""
    check_range(config, *fields, low=1)


def check_range(config: Any, *fields: str, low: float = 0, high: float = math.inf, above: bool = False) -> None:
    """Raise ValueError where a number is not finite, or not from `low` (`above`: above it) to `high`; None passes."""
    for field in fields:
        value = getattr(config, field)
        if value is None:
            continue
        if not math.isfinite(value):
            raise ValueError(f"{field} {value!r} must be finite")
        if not low <= value <= high or (above and value == low):
            least = f"be {'above' if above else 'at least'} {low:g}"
            raise ValueError(f"{field} {value!r} must {least if high == math.inf else f'lie in {low:g} to {high:g}'}")


def check_widths(config: Any, field: str) -> None:
    """Make a tuple of a config's list; raise ValueError where it is empty or holds a number below 1."""
    value = getattr(config, field)
    if not value or min(value) < 1:
        raise ValueError(f"{field} {value!r} must hold a number for each level, one level at least, of at least 1 each")
    object.__setattr__(config, field, tuple(value))


def check_choice(config: Any, field: str, choices: Any, what: str | None = None) -> None:
    """Raise ValueError where a field is none of the names in `choices`; it is called `what`, or by its name."""
    value = getattr(config, field)
    if value not in tuple(choices):
        raise ValueError(f"no {what or field} {value!r}; there are {', '.join(choices)}")


def check_multiple(field: str, value: int, by: str, divisor: int) -> None:
    """Raise ValueError where `value` of `field` is no multiple of `divisor`, which is called `by`."""
    if value % divisor:
        raise ValueError(f"{field} {value} is not divisible by {by} {divisor}; take a multiple of {divisor}")


def check_images(x: Tensor, channels: int, size: int) -> None:
    """Raise ValueError unless `x` holds floating-point images (B, C, size, size)."""
    rng.check_floating(x)
    if x.ndim != 4 or x.shape[1:] != (channels, size, size):
        raise ValueError(f"images of shape {tuple(x.shape)}; this model takes (batch, {channels}, {size}, {size})")


def check_per_sample(x: Tensor, batch: int, what: str) -> None:
    """Raise ValueError unless `x` holds one number for each sample: (B,)."""
    if x.shape != (batch,):
        raise ValueError(f"{what} of shape {tuple(x.shape)}; this model takes one for each sample: ({batch},)")


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
