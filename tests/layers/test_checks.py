from __future__ import annotations  # so the fields of `Config` have texts for types; those of models have the types

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from ditbook.layers import checks


@dataclass
class Config:
    """A field of every kind that configs have, and of one that they have not."""

    flag: bool = True
    count: int = 3
    width: int | None = None
    rate: float = 0.5
    name: str = "a"
    kind: Literal["a", "b"] | None = None
    sizes: tuple[int, ...] = (1, 2)
    parts: Sequence[float] = (0.5, 1)
    table: dict[str, Any] = field(default_factory=dict)
    plain: tuple = (1, "2")
    folder: Path = Path()
    anything: Any = None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flag": 1}, "flag 1 of type int must be true or false"),
        ({"count": True}, "count True of type bool must be a whole number"),
        ({"count": 2.0}, "count 2.0 of type float must be a whole number"),
        ({"count": np.int64(3)}, "of type int64 must be a whole number"),
        ({"count": None}, "count None of type NoneType must be a whole number"),
        ({"width": "2"}, "width '2' of type str must be a whole number$"),
        ({"rate": False}, "rate False of type bool must be a number"),
        ({"rate": math.nan}, "rate nan of type float must be a number"),
        ({"name": 3}, "name 3 of type int must be a text"),
        ({"kind": "c"}, "kind 'c' of type str must be one of a, b"),
        ({"kind": ["a"]}, "of type list must be one of a, b"),
        ({"sizes": 3}, "sizes 3 of type int must be a list, each a whole number"),
        ({"sizes": (1, 2.0)}, r"sizes \(1, 2.0\) of type tuple must be a list, each a whole number"),
        ({"parts": [True]}, r"parts \[True\] of type list must be a list, each a number"),
        ({"table": []}, r"table \[\] of type list must be a table"),
        ({"plain": "12"}, "plain '12' of type str must be a list$"),
        ({"folder": "here"}, "folder 'here' of type str must be a Path"),
    ],
)
def test_types(changes, message):
    good = {"width": 2, "rate": math.inf, "kind": "b", "sizes": [3], "parts": [], "anything": 1j}
    checks.check_types(Config(**good))
    checks.check_types(Config(rate=1))
    with pytest.raises(ValueError, match=message):
        checks.check_types(Config(**good | changes))


@pytest.mark.parametrize("value", [0, -3])
def test_what_is_not_positive(value):
    with pytest.raises(ValueError, match=f"depth {value} must be at least 1"):
        checks.check_positive(SimpleNamespace(width=1, depth=value), "width", "depth")


def test_ranges():
    config = SimpleNamespace(a=0, b=1.0, c=None, d=math.inf)
    checks.check_range(config, "a", "b", "c", high=1)
    for fields, options, message in (
        (("b", "a"), {"above": True}, "a 0 must be above 0"),
        (("a", "b"), {"high": 0.5}, "b 1.0 must lie in 0 to 0.5"),
        (("a",), {"low": 2}, "a 0 must be at least 2"),
        (("d",), {}, "d inf must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            checks.check_range(config, *fields, **options)


def test_multiples():
    checks.check_multiple("width", 12, "heads", 3)
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 3; take a multiple of 3"):
        checks.check_multiple("width", 10, "heads", 3)


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 1, 8, 8), (2, 3, 9, 8), (2, 3, 8, 9), (2, 3, 8, 8, 1)])
def test_images_of_another_shape(shape):
    checks.check_images(torch.zeros(2, 3, 8, 8), 3, 8)
    with pytest.raises(ValueError, match=r"images of shape \(2, .*; this model takes \(batch, 3, 8, 8\)"):
        checks.check_images(torch.zeros(shape), 3, 8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_images_of_whole_numbers(dtype):
    with pytest.raises(ValueError, match=rf"type {dtype}; expected floating-point numbers in \[-1, 1\]"):
        checks.check_images(torch.zeros(2, 3, 8, 8, dtype=dtype), 3, 8)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (4,)])
def test_one_number_for_each_image(shape):
    checks.check_per_sample(torch.zeros(3), 3, "timesteps")
    with pytest.raises(ValueError, match=r"timesteps of shape .*; this model takes one for each sample: \(3,\)"):
        checks.check_per_sample(torch.zeros(shape), 3, "timesteps")
