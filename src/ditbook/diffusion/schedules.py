"""Noise schedules: how much variance each forward step adds. All are float64 tensors β of shape (T,). And noise levels.

Index i of a table is the paper's step t = i + 1: `betas[0]` is β₁.
"""

import math

import torch
from torch import Tensor


def _at_least_two(steps: int) -> None:
    if steps < 2:
        raise ValueError(f"a schedule needs at least 2 steps, got {steps}; papers use 1000")


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """β grows linearly. The schedule of DDPM and of DiT.

    Raises:
        ValueError: fewer than two steps.

    Source: Ho et al. 2020, section 4.
    """
    _at_least_two(steps)
    return torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)


def scaled_linear(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """√β grows linearly. The schedule of latent diffusion, whose code calls it "linear".

    Raises:
        ValueError: fewer than two steps.

    Source: Rombach et al. 2022, code; defaults are Stable Diffusion's.
    """
    _at_least_two(steps)
    return torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2


def cosine(steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """ᾱ falls like a squared cosine, so noise arrives later and more evenly than in the linear schedule.

    Raises:
        ValueError: fewer than two steps.

    Source: Nichol & Dhariwal 2021, equation 17.
    """
    _at_least_two(steps)
    angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + s) / (1 + s) * math.pi / 2
    alpha_bar = angle.cos() ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """A schedule that ends in pure noise: √ᾱ is shifted and scaled so that it ends at 0 and keeps its first value.

    Its last β is 1, so that a network must predict x₀ or v.

    Args:
        betas: a schedule, (T,).

    Source: Lin et al. 2024, algorithm 1.
    """
    root = (1 - betas.double()).cumprod(0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alpha_bar = root.square()
    return 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])


def karras_sigmas(count: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels σ, increasing, whose (1/`rho`)-th powers are evenly spaced: the larger `rho`, the more are low.

    >>> [round(sigma, 2) for sigma in karras_sigmas(18)[-3:].tolist()]
    [40.79, 57.59, 80.0]

    Raises:
        ValueError: fewer than two, or levels that do not increase from above 0.

    Source: Karras et al. 2022, equation 5, without its last level 0, to which a sampler's last step leads.
    """
    if count < 2 or not 0 < low < high:
        raise ValueError(f"need at least 2 levels and 0 < low < high, got {count}, {low} and {high}")
    return torch.linspace(low ** (1 / rho), high ** (1 / rho), count, dtype=torch.float64) ** rho


def spaced_timesteps(steps: int, count: int) -> list[int]:
    """`count` timesteps spread evenly over 0 … steps − 1, first and last included.

    >>> spaced_timesteps(1000, 5)
    [0, 250, 500, 749, 999]

    Raises:
        ValueError: `count` is smaller than 2 or larger than `steps`.

    Source: Nichol & Dhariwal 2021, section 4 ("Improving sampling speed").
    """
    if not 2 <= count <= steps:
        raise ValueError(f"cannot choose {count} timesteps out of {steps}; take between 2 and {steps}")
    return [round(k * (steps - 1) / (count - 1)) for k in range(count)]
