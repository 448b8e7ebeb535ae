"""Vectors as whole numbers: principal components, each rounded to one of a few values.

Letters: `N` vectors, `J` their width, `K` components, `V` values of each.
Source: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents", section 2.2.
"""

import torch
from torch import Tensor, nn


class QuantizedComponents(nn.Module):
    """The K components of largest variance, in this order, and V values for each, evenly spread over its range.

    Args:
        width: J.
        components: K, at most J.
        values: V.

    Raises:
        ValueError: more components than the width, or fewer than two values.
    """

    mean: Tensor
    basis: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, width: int, components: int, values: int) -> None:
        super().__init__()
        if not 1 <= components <= width or values < 2:
            raise ValueError(f"{components} components of {values} values; take 1 to {width}, and 2 values at least")
        self.values = values
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.eye(width)[:, :components].contiguous())  # (J, K), columns orthonormal
        self.register_buffer("low", -torch.ones(components))
        self.register_buffer("high", torch.ones(components))

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Take the mean, the components and their ranges from vectors (N, J)."""
        centered = vectors.double() - vectors.double().mean(dim=0)
        _, directions = torch.linalg.eigh(centered.T @ centered)  # ascending
        self.mean.copy_(vectors.double().mean(dim=0))
        self.basis.copy_(directions.flip(1)[:, : self.basis.shape[1]])
        projected = (vectors - self.mean) @ self.basis
        self.low.copy_(projected.amin(dim=0))
        self.high.copy_(projected.amax(dim=0))

    def encode(self, vectors: Tensor) -> Tensor:
        """The nearest value of each component: (N, J) → (N, K), from 0 to V − 1."""
        projected = (vectors - self.mean) @ self.basis  # (N, K)
        place = (projected - self.low) / (self.high - self.low) * self.values
        return place.floor().clamp(0, self.values - 1).long()  # (14.8)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors with the middle of each value's interval: (N, K) → (N, J)."""
        projected = self.low + (codes + 0.5) / self.values * (self.high - self.low)
        return self.mean + projected @ self.basis.T  # (14.9)
