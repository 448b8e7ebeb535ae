"""The kernel distance between two sets of images: the squared maximum mean discrepancy of their features.

With the features of the Inception network it is called KID. Unlike the Fréchet distance it takes no Gaussian, and its
estimate from few images is unbiased: it is right on average, and can come out below zero.
Letters: `N` images, `F` features, `K` subsets.
Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4; Gretton et al. 2012, lemma 6.
"""

import torch
from torch import Tensor

from ditbook import rng
from ditbook.metrics.fid import check_features


def polynomial_kernel(a: Tensor, b: Tensor) -> Tensor:
    """(aᵀb / F + 1)³ of features (N, F) and (M, F): (N, M)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def mmd(real: Tensor, generated: Tensor) -> Tensor:
    """The unbiased estimate of the squared maximum mean discrepancy of two sets of features.

    Args:
        real: (N, F).
        generated: (M, F).

    Returns:
        A scalar in float64 on the CPU, which may be negative.

    Raises:
        ValueError: not of these shapes, not finite, or fewer than two images on a side.
    """
    a, b = _pair(real, generated)
    n, m = len(a), len(b)
    within_a, within_b = polynomial_kernel(a, a), polynomial_kernel(b, b)
    within = (within_a.sum() - within_a.trace()) / (n * (n - 1)) + (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return within - 2 * polynomial_kernel(a, b).mean()  # (17.9)


def kid(
    real: Tensor, generated: Tensor, generator: torch.Generator, *, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
    """Mean and standard deviation of `mmd` over random subsets of both sides.

    The standard deviation is that of one subset. The mean varies less, though subsets that share images keep it from
    falling as 1/√K.

    Args:
        real: features (N, F).
        generated: features (M, F).
        generator: of the subsets, each drawn without replacement.
        subsets: K, at least two.
        size: images of a subset on each side; at most N and M.

    Raises:
        ValueError: a value out of range, or as `mmd`.
    """
    a, b = _pair(real, generated)
    if subsets < 2:
        raise ValueError(f"a standard deviation needs two subsets at least, not {subsets}")
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(
            f"subsets of {size} images; with {len(a)} and {len(b)} there can be 2 to {min(len(a), len(b))}"
        )

    def subset(x: Tensor) -> Tensor:
        return x[rng.rand((len(x),), generator, x.device).argsort()[:size]]

    values = torch.stack([mmd(subset(a), subset(b)) for _ in range(subsets)])
    return values.mean().item(), values.std().item()


def _pair(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides, checked, in float64 on the CPU."""
    for features in (real, generated):
        check_features(features)
        if len(features) < 2:
            raise ValueError("an unbiased estimate needs two images at least on each side")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"{real.shape[1]} features cannot be compared with {generated.shape[1]}")
    return real.detach().cpu().double(), generated.detach().cpu().double()
