"""Random tensors: drawn where the generator lives, then moved to where they are used.

One seed so gives the same numbers on every device, and no caller has to know where a generator was made.
"""

import torch
from torch import Tensor


def randn(shape: tuple[int, ...] | torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of the given shape, of the type and on the device of `like` (a floating-point tensor)."""
    return torch.empty(shape, dtype=like.dtype, device=generator.device).normal_(generator=generator).to(like.device)


def rand(shape: tuple[int, ...] | torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers uniform in [0, 1), float32, on `device`."""
    return torch.empty(shape, device=generator.device).uniform_(generator=generator).to(device)


def randint(high: int, shape: tuple[int, ...] | torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Whole numbers uniform in 0 … high − 1, int64, on `device`."""
    return torch.empty(shape, dtype=torch.int64, device=generator.device).random_(high, generator=generator).to(device)
