"""The logit-Laplace distribution: a likelihood for images, whose values have a range.

Source: Ramesh et al. 2021 (DALL·E), appendix A.3.
"""

import math

import torch
from torch import Tensor

EDGE = 0.1  # ε: how far the values of an image stay away from 0 and 1


def to_unit(x: Tensor) -> Tensor:
    """Images in [−1, 1] → values in [ε, 1 − ε], of which the logit is finite. Source: equation 3."""
    return (1 - 2 * EDGE) * (x + 1) / 2 + EDGE  # (9.6)


def from_unit(y: Tensor) -> Tensor:
    """The inverse of `to_unit`, clamped to [−1, 1]."""
    return (2 * (y - EDGE) / (1 - 2 * EDGE) - 1).clamp(-1, 1)


def logit_laplace(y: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Minus the logarithm of the density, in nats, of the shape of `y`: the logit of `y` has a Laplace distribution.

    Args:
        y: values in (0, 1).
        mean: μ, of the logit.
        log_scale: ln b.

    Source: equation 2.
    """
    distance = (torch.logit(y) - mean).abs()
    return distance * (-log_scale).exp() + log_scale + math.log(2) + torch.log(y * (1 - y))  # (9.5)
