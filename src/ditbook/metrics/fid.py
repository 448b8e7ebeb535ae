"""The Fréchet distance between two sets of pictures, each summed up as a Gaussian of its features.

With the features of the Inception network it is called FID. Here the features are the caller's: any function of
images. Numbers from different features must never be compared.
Letters: `N` pictures, `F` features.
Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Features = Callable[[Tensor], Tensor]  # images (B, C, H, W) in [−1, 1] → (B, F)
SOLVERS = ("cholesky", "eigenvalues")


@dataclass
class Statistics:
    """Mean and covariance of features, gathered in one pass and in float64.

    What is kept are the mean and the sum of squared deviations from it, so that adding batches, in any order and on
    any number of machines, loses no digits (Chan et al. 1979).
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))  # (F,)
    scatter: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))  # (F, F)

    def add(self, features: Tensor) -> None:
        """Add a batch of features (N, F).

        Raises:
            ValueError: not of that shape, empty, not finite, or of another number of features than before.
        """
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f"features of shape {tuple(features.shape)}; expected (N, F), neither of them 0")
        if not features.isfinite().all():
            raise ValueError("the features hold values that are not finite; look at the images they come from")
        values = features.detach().cpu().double()
        mean = values.mean(dim=0)
        deviations = values - mean
        self.merge(Statistics(len(values), mean, deviations.T @ deviations))

    def merge(self, other: Statistics) -> None:
        """Add what others have gathered: the result is that of one pass over everything.

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
            ValueError: fewer than two pictures.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs two pictures at least, not {self.count}")
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


def frechet(one: Statistics, other: Statistics, solver: str = "cholesky") -> float:
    """The squared Fréchet distance of two Gaussians, ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 √(Σ₁ Σ₂)).

    Args:
        one, other: the statistics; the order does not matter.
        solver: "cholesky" takes the eigenvalues of a symmetric matrix, "eigenvalues" those of the product itself.
            Both give the trace of the root without the root.

    Raises:
        ValueError: another number of features, or no such solver.

    Warns:
        UserWarning: there are not more pictures than features, so that a covariance has directions without any spread.

    Source: Dowson & Landau 1982; Heusel et al. 2017, equation 6.
    """
    if len(one.mean) != len(other.mean):
        raise ValueError(f"{len(one.mean)} features cannot be compared with {len(other.mean)}")
    if solver not in SOLVERS:
        raise ValueError(f"no solver {solver!r}; there are {' and '.join(SOLVERS)}")
    for side in (one, other):
        if side.count <= len(side.mean):
            warnings.warn(
                f"{side.count} pictures for {len(side.mean)} features: the covariance cannot have full rank, and the "
                "distance comes out too large; take many times as many pictures as features",
                stacklevel=2,
            )
    a, b = one.covariance, other.covariance
    root = _by_cholesky(a, b) if solver == "cholesky" else torch.linalg.eigvals(a @ b).real
    trace = root.clamp(min=0).sqrt().sum()  # (17.4)
    distance = (one.mean - other.mean).square().sum() + a.trace() + b.trace() - 2 * trace  # (17.3)
    return max(distance.item(), 0.0)


def _by_cholesky(a: Tensor, b: Tensor) -> Tensor:
    """Eigenvalues of a·b: with a = L Lᵀ they are those of Lᵀ b L, which is symmetric."""
    factor, failed = torch.linalg.cholesky_ex(a)
    if failed:  # no full rank: the root by eigenvalues serves as a factor just as well
        values, vectors = torch.linalg.eigh(a)
        factor = vectors * values.clamp(min=0).sqrt()
    return torch.linalg.eigvalsh(factor.T @ b @ factor)


def extrapolate(counts: list[int], distances: list[float]) -> float:
    """The distance that infinitely many pictures would have: a straight line in 1/N, read off at 0.

    Args:
        counts: numbers of pictures N, two different ones at least.
        distances: what was measured with each.

    Raises:
        ValueError: too few, or not one distance for each.

    Source: Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them".
    """
    if len(counts) != len(distances) or len(set(counts)) < 2:
        raise ValueError(f"{len(counts)} counts and {len(distances)} distances do not make a line")
    inverse = 1 / torch.tensor(counts, dtype=torch.float64)
    values = torch.tensor(distances, dtype=torch.float64)
    slope = ((inverse - inverse.mean()) * values).sum() / (inverse - inverse.mean()).square().sum()
    return (values.mean() - slope * inverse.mean()).item()  # (17.6)
