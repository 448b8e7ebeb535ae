from types import SimpleNamespace

import pytest
import torch

from ditbook.layers import checks


@pytest.mark.parametrize("value", [0, -3, 2.0, "2", None])
def test_what_is_no_positive_whole_number(value):
    with pytest.raises(ValueError, match=f"depth {value!r} must be a whole number, at least 1"):
        checks.check_positive(SimpleNamespace(width=1, depth=value), "width", "depth")


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
    with pytest.raises(ValueError, match=rf"type {dtype}; this model takes floating-point numbers in \[-1, 1\]"):
        checks.check_images(torch.zeros(2, 3, 8, 8, dtype=dtype), 3, 8)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (4,)])
def test_one_number_for_each_image(shape):
    checks.check_per_image(torch.zeros(3), 3, "timesteps")
    with pytest.raises(ValueError, match=r"timesteps of shape .*; this model takes one for each image: \(3,\)"):
        checks.check_per_image(torch.zeros(shape), 3, "timesteps")
