"""Weights of the squared error at each noise level, as functions of the signal-to-noise ratio SNR = a²/b².

A weighting is a function SNR → weight of the squared error of x₀, whatever the network predicts. The same loss in terms
of another prediction has another weight, which `of_error` gives: ‖Δε‖² = SNR ‖Δx₀‖², and ‖Δv‖² = (SNR + 1) ‖Δx₀‖² on
a path with a² + b² = 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.process import Parameterization, known

Weighting = Callable[[Tensor], Tensor]


def uniform_eps(snr: Tensor) -> Tensor:
    """The simple loss of a network that predicts ε. Source: Ho et al. 2020, equation 14."""
    return snr


def uniform_x_start(snr: Tensor) -> Tensor:
    """The simple loss of a network that predicts x₀. Source: Salimans & Ho 2022, section 4."""
    return torch.ones_like(snr)


def uniform_v(snr: Tensor) -> Tensor:
    """The simple loss of a network that predicts v. Source: Salimans & Ho 2022, section 4, "SNR+1"."""
    return snr + 1


def min_snr(snr: Tensor, *, gamma: float = 5.0) -> Tensor:
    """The loss of ε, its weight bounded where there is little noise. Source: Hang et al. 2023, section 3."""
    return snr.clamp(max=gamma)


def p2(snr: Tensor, *, gamma: float = 1.0, k: float = 1.0) -> Tensor:
    """The loss of ε divided by (k + SNR)^γ. Source: Choi et al. 2022, section 3."""
    return snr / (k + snr) ** gamma


def of_error(weighting: Weighting, snr: Tensor, predicts: Parameterization) -> Tensor:
    """The weight of the squared error of what a network predicts, so that the loss is that of `weighting`.

    Where SNR is 0, the error of ε says nothing of x₀, and its weight is 0.

    Args:
        weighting: one of this module's functions, or another one of the signal-to-noise ratio.
        snr: signal-to-noise ratios, of any shape.
        predicts: what the network predicts, on a process with a² + b² = 1.
    """
    weight = weighting(snr)
    if known(predicts) == "eps":
        return torch.where(snr > 0, weight / snr, 0)
    return weight / (snr + 1) if predicts == "v" else weight


def of_timesteps(weighting: Weighting, diffusion: GaussianDiffusion) -> Tensor:
    """`of_error` at each index of a process, (T,), float64."""
    return of_error(weighting, diffusion.sigmas**-2, diffusion.predicts)


def of_bound(diffusion: GaussianDiffusion) -> Tensor:
    """The weight of the squared error of x₀ in the term of the bound at each index, in nats, (T,), float64.

    It is that of a KL divergence to a reverse step with the posterior variance: half the difference of SNR to the index
    below. The first, where the term is no divergence, is infinite.

    Source: Kingma et al. 2021, section 4.
    """
    snr = diffusion.sigmas**-2
    return (torch.cat([snr.new_full((1,), torch.inf), snr[:-1]]) - snr) / 2  # (11.10)
