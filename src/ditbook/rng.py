"""Random tensors: sampled where the generator lives, then moved to where they are used.

One seed so gives the same numbers on every device, and no caller has to know where a generator was made.
"""

import torch
from torch import Tensor

Shape = tuple[int, ...] | torch.Size


def randn(shape: Shape, generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of the given shape, of the type and on the device of `like`.

    Raises:
        ValueError: `like` holds whole numbers.
    """
    check_floating(like)
    numbers = torch.empty(shape, dtype=like.dtype, device=generator.device).normal_(generator=generator)
    return moved(numbers, like.device)


def check_floating(x: Tensor) -> None:
    """Raise ValueError for images of whole numbers, as uint8: to their type noise and coefficients would be rounded."""
    if not x.is_floating_point():
        raise ValueError(
            f"images of type {x.dtype}; expected floating-point numbers in [-1, 1]: scale bytes by x / 127.5 - 1"
        )


def rand(shape: Shape, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers uniform in [0, 1), float32, on `device`."""
    return moved(torch.empty(shape, device=generator.device).uniform_(generator=generator), device)


def randint(high: int, shape: Shape, generator: torch.Generator, device: torch.device) -> Tensor:
    """Whole numbers uniform in 0 … high − 1, int64, on `device`."""
    numbers = torch.empty(shape, dtype=torch.int64, device=generator.device).random_(high, generator=generator)
    return moved(numbers, device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. The host does not wait for a CUDA device; what is called there next sees the copy."""
    return tensor.to(device, non_blocking=device.type == "cuda")
