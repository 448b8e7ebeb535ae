"""Gaussian data, for which everything is known: the best prediction of the clean image, and conditionals.

For other data with the same mean and covariance that prediction is the best linear one, the Wiener filter.

Letters: `B` batch, `D` numbers of an image, `K` known ones, `N` images.
"""

import torch
from torch import Tensor

from ditbook.diffusion.gaussian import GaussianDiffusion


class WienerFilter:
    """Noisy image, timestep → the linear prediction of x₀ with the least squared error, for one mean and covariance.

    It is called like a network that predicts x₀.

    Args:
        mean: of the clean images, (D,).
        covariance: of the clean images, (D, D), symmetric, no eigenvalue negative.
        diffusion: the process whose timesteps it is called with.

    Raises:
        ValueError: shapes that do not fit.

    Source: Wiener 1949; for Gaussian data it is the conditional mean, Bishop 2006, equation 2.116.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, diffusion: GaussianDiffusion) -> None:
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"expected a mean (D,) and a covariance (D, D), got {mean.shape} and {covariance.shape}")
        self.mean, self.diffusion = mean, diffusion
        self.values, self.vectors = torch.linalg.eigh(covariance)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict x₀ (B, …) from `x` (B, …), D numbers each, at training timesteps `t` (B,).

        Raises:
            ValueError: the shapes do not fit.
        """
        flat = x.flatten(1)  # (B, D)
        if flat.shape[1] != len(self.mean):
            raise ValueError(f"images of {flat.shape[1]} numbers; this filter takes {len(self.mean)}")
        sigma = self.diffusion.sigmas_of(t, flat)  # (B, 1)
        a = 1 / (1 + sigma**2).sqrt()
        gain = a * self.values / (1 + a**2 * (self.values - 1))  # (B, D): a λ / (a² λ + b²)
        centered = (flat - a * self.mean) @ self.vectors
        return (self.mean + (gain * centered) @ self.vectors.T).view_as(x)  # (13.1)


def fit(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of images (N, …), for `WienerFilter`."""
    flat = images.flatten(1)
    return flat.mean(0), torch.cov(flat.T)


def conditional(mean: Tensor, covariance: Tensor, known: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D − K,) and covariance (D − K, D − K) of the unknown numbers of a Gaussian, given the known ones.

    Args:
        mean: of all, (D,).
        covariance: of all, (D, D).
        known: True for the K known ones, (D,).
        values: of these, (K,).

    Source: Bishop 2006, equations 2.81 and 2.82.
    """
    across = covariance[~known][:, known]  # (D − K, K)
    weights = torch.linalg.solve(covariance[known][:, known], across.T).T
    found = mean[~known] + weights @ (values - mean[known])
    return found, covariance[~known][:, ~known] - weights @ across.T  # (13.2)
