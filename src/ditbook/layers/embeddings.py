"""Timestep, position and label embeddings.

Letters: `B` batch, `D` width, `T` tokens.
"""

import math

import torch
from torch import Tensor, nn

FREQUENCY_WIDTH = 256  # channels of the sinusoid that enters TimestepEmbedding


def _half(width: int, what: str) -> int:
    if width % 2:
        raise ValueError(f"{what} needs an even width (half sines, half cosines), got {width}")
    return width // 2


def timestep_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of a timestep, cosines first.

    Args:
        t: timesteps, (B,), in training steps (0 … T−1); fractions are allowed.
        width: number of channels, even.
        max_period: the slowest wave has about this period (in steps, divided by 2π).

    Returns:
        (B, width): cos(t ω_k) then sin(t ω_k), with ω_k = max_period^(−k / (width/2)).

    Raises:
        ValueError: `width` is odd, or the timesteps are no list.

    Source: Ho et al. 2020 (appendix B), in the order of channels that DiT uses.
    """
    half = _half(width, "timestep_embedding")
    if t.ndim != 1:
        raise ValueError(f"timesteps of shape {tuple(t.shape)}; expected one for each image: (B,)")
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    omega = torch.exp(-math.log(max_period) * k / half)
    angle = t[:, None].float() * omega  # (B, width/2)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)  # (16.5)


def sincos_1d(width: int, positions: Tensor) -> Tensor:
    """Sinusoids of a position, sines first: (N,) → (N, width), in float64.

    Raises:
        ValueError: `width` is odd.

    Source: Vaswani et al. 2017, section 3.5 (sines and cosines here in two halves, not interleaved).
    """
    half = _half(width, "sincos_1d")
    omega = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions.double()[:, None] * omega  # (N, width/2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)  # (3.6)


def sincos_2d(width: int, size: int) -> Tensor:
    """The position table of a `size` × `size` grid of tokens, in float64.

    The first half of the channels encodes the column, the second half the row. (The official code calls the first
    half the height; the numbers are those of the column.)

    Args:
        width: D, divisible by four.
        size: tokens along one side.

    Returns:
        (size², D), tokens in reading order.

    Raises:
        ValueError: `width` is not divisible by four.

    Source: Peebles & Xie 2023, section 3.2; the sine–cosine version of ViT's positions.
    """
    if width % 4:
        raise ValueError(f"sincos_2d needs a width divisible by four (two axes, sine and cosine), got {width}")
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.cat([sincos_1d(width // 2, column.flatten()), sincos_1d(width // 2, row.flatten())], dim=1)  # (16.3)


class TimestepEmbedding(nn.Module):
    """Sinusoid → Linear → SiLU → Linear: (B,) → (B, width).

    Source: Peebles & Xie 2023, section 4 (256 frequencies); Ho et al. 2020.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCY_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embed timesteps (B,) as vectors (B, width)."""
        return self.mlp(timestep_embedding(t, FREQUENCY_WIDTH).to(next(self.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """A table of class vectors with one more row, the null class, which stands for no class.

    Args:
        num_classes: classes are 0 … num_classes − 1; the null class is `num_classes`.
        width: D.

    Source: Ho & Salimans 2022, algorithm 1 (training a conditional and an unconditional model as one).
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, width)

    @property
    def null(self) -> int:
        """Index of the null class."""
        return self.table.num_embeddings - 1

    def forward(self, y: Tensor) -> Tensor:
        """Embed labels: (B,) → (B, width).

        Raises:
            ValueError: labels are no list of whole numbers, or one is negative or larger than the null class. The range
                is checked for labels on the CPU outside compilation; elsewhere the check would make the device wait,
                and the table's own index error stands.
        """
        if y.ndim != 1 or y.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"labels of shape {tuple(y.shape)} and type {y.dtype}; expected int64 or int32, (B,)")
        if not torch.compiler.is_compiling() and y.device.type == "cpu" and y.numel():
            low, high = int(y.min()), int(y.max())
            if low < 0 or high > self.null:
                wrong = low if low < 0 else high
                raise ValueError(
                    f"class {wrong} is out of range: labels are 0 to {self.null - 1}, and {self.null} is the null class"
                )
        return self.table(y)
