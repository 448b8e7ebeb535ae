"""The Fréchet distance between two sets of images, each summed up as a Gaussian of its features.

With the features of the Inception network it is called FID. Here the features are the caller's: any function of
images. Numbers from different features must never be compared.
Letters: `N` images, `F` features.
Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Features = Callable[[Tensor], Tensor]  # images (B, C, H, W) in [−1, 1] → (B, F)


def check_features(features: Tensor) -> None:
    """Check features (N, F).

    Raises:
        ValueError: not of that shape, empty, or not finite.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features of shape {tuple(features.shape)}; expected (N, F), neither of them 0")
    if not features.isfinite().all():
        raise ValueError("the features hold values that are not finite; check the images and their network")


@dataclass
class Statistics:
    """Mean and covariance of features, gathered in one pass, in float64 and on the CPU.

    The mean and the sum of squared deviations from it are kept, so that adding batches, in any order and on any number
    of machines, loses no digits (Chan et al. 1979).
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))  # (F,)
    scatter: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))  # (F, F)

    def add(self, features: Tensor) -> None:
        """Add a batch of features (N, F).

        Raises:
            ValueError: not of that shape, empty, not finite, or of another number of features than before.
        """
        check_features(features)
        values = features.detach().cpu().double()
        mean = values.mean(dim=0)
        deviations = values - mean
        self.merge(Statistics(len(values), mean, deviations.T @ deviations))

    def merge(self, other: Statistics) -> None:
        """Add other statistics: the result is that of one pass over all features.

        Raises:
            ValueError: another number of features.
        """
        if not self.count:
            self.count, self.mean, self.scatter = other.count, other.mean, other.scatter
            return
        if len(other.mean) != len(self.mean):
            raise ValueError(f"{len(other.mean)} features cannot be added to {len(self.mean)}")
        total = self.count + other.count
        apart = other.mean - self.mean
        self.scatter = self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / total)
        self.mean = self.mean + apart * (other.count / total)  # (17.5)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """(F, F), divided by N − 1.

        Raises:
            ValueError: fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs two images at least, not {self.count}")
        return self.scatter / (self.count - 1)


@torch.no_grad()
def statistics(features: Features, images: Tensor, batch_size: int = 250) -> Statistics:
    """Gather the statistics of images (N, C, H, W), batch by batch.

    Raises:
        ValueError: as `Statistics.add`.
    """
    result = Statistics()
    for batch in images.split(batch_size):
        result.add(features(batch))
    return result


def frechet(real: Statistics, generated: Statistics) -> float:
    """The squared Fréchet distance of two Gaussians, ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 √(Σ₁ Σ₂)).

    Args:
        real, generated: the statistics; the order does not matter. A covariance may be singular.

    Raises:
        ValueError: another number of features, or fewer than two images.

    Warns:
        UserWarning: there are not more images than features, so that a covariance is singular.

    Source: Dowson & Landau 1982; Heusel et al. 2017, equation 6.
    """
    if len(real.mean) != len(generated.mean):
        raise ValueError(f"{len(real.mean)} features cannot be compared with {len(generated.mean)}")
    for side in (real, generated):
        if side.count <= len(side.mean):
            warnings.warn(
                f"{side.count} images for {len(side.mean)} features: the covariance cannot have full rank, and the "
                "distance comes out too large; take many times as many images as features",
                stacklevel=2,
            )
    a, b = real.covariance, generated.covariance
    factor = _factor(a)
    root = torch.linalg.eigvalsh(factor.T @ b @ factor).clamp(min=0).sqrt().sum()  # (17.4)
    distance = (real.mean - generated.mean).square().sum() + a.trace() + b.trace() - 2 * root  # (17.3), one F: (17.2)
    return max(distance.item(), 0.0)


def _factor(a: Tensor) -> Tensor:
    """L with a = L Lᵀ, for a covariance that may be singular."""
    factor, failed = torch.linalg.cholesky_ex(a)
    if failed:
        values, vectors = torch.linalg.eigh(a)
        factor = vectors * values.clamp(min=0).sqrt()
    return factor


def fid_infinity(counts: Sequence[int], distances: Sequence[float]) -> float:
    """The distance at infinitely many images: the intercept at 1/N = 0 of the least-squares line over 1/N.

    Args:
        counts: numbers of images N, two different ones at least.
        distances: the Fréchet distance measured with each.

    Raises:
        ValueError: too few, or not one distance for each count.

    Source: Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them".
    """
    if len(counts) != len(distances) or len(set(counts)) < 2:
        raise ValueError(f"{len(counts)} counts and {len(distances)} distances do not make a line")
    inverse = 1 / torch.tensor(counts, dtype=torch.float64)
    values = torch.tensor(distances, dtype=torch.float64)
    slope = ((inverse - inverse.mean()) * values).sum() / (inverse - inverse.mean()).square().sum()
    return (values.mean() - slope * inverse.mean()).item()  # (17.6)
