"""The variational bound on −log p(x₀), term by term.

Letters: `B` batch, `C` channels, `T` timesteps.
"""

import math

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.gaussian import GaussianDiffusion, Model


def gaussian_kl(mean_1: Tensor, log_var_1: Tensor, mean_2: Tensor, log_var_2: Tensor) -> Tensor:
    """KL(N₁ ‖ N₂) of Gaussians with diagonal covariance, for each element, in nats."""
    ratio = (log_var_1 - log_var_2).exp()
    return 0.5 * (ratio + (mean_1 - mean_2).square() * (-log_var_2).exp() - 1 + log_var_2 - log_var_1)  # (10.9)


def discretized_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """−log P of 8-bit pixels in [−1, 1] under a Gaussian cut into bins of width 2/255, for each element, in nats.

    Source: Ho et al. 2020, equation 13. (The exact normal distribution function; the papers' code approximates it.)
    """
    scale = (-0.5 * log_var).exp()
    upper = torch.special.ndtr((x - mean + 1 / 255) * scale)
    lower = torch.special.ndtr((x - mean - 1 / 255) * scale)
    upper = torch.where(x > 0.999, 1, upper)
    lower = torch.where(x < -0.999, 0, lower)
    return -(upper - lower).clamp(min=1e-12).log()


def bound_terms(
    diffusion: GaussianDiffusion, predicted: Tensor, log_var: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """The term of the variational bound at each sample's timestep, in bits per dimension, (B,).

    A KL divergence from the posterior for t > 0, the negative log-likelihood of the pixels for t = 0.

    Args:
        diffusion: the process.
        predicted: the predicted clean images, (B, C, …).
        log_var: log variance of the reverse step, of the same shape.
        x_start: the true clean images.
        x_t: the noisy images.
        t: indices, (B,).

    Source: Ho et al. 2020, equation 5; Nichol & Dhariwal 2021, section 2.1.
    """
    true_mean, true_log_var = diffusion.posterior(x_start, x_t, t)
    mean, _ = diffusion.posterior(predicted, x_t, t)
    kl = gaussian_kl(true_mean, true_log_var.expand_as(x_t), mean, log_var).flatten(1).mean(1)
    nll = discretized_nll(x_start, mean, log_var).flatten(1).mean(1)
    return torch.where(t == 0, nll, kl) / math.log(2)  # (10.8)


@torch.no_grad()
def variational_bound(
    model: Model, diffusion: GaussianDiffusion, x_start: Tensor, generator: torch.Generator, **condition: Tensor
) -> dict[str, Tensor]:
    """The whole bound on −log p(x₀), term by term, with one call of the model for each step.

    Args:
        model: `model(x, t, **condition)`.
        diffusion: the process.
        x_start: clean images, (B, C, …).
        generator: gives one noise for each image and step.
        condition: passed to the model, each (B, …).

    Returns:
        For each choice of the variance, "posterior" and "beta" (fixed beforehand) and, with `learn_sigma`, "learned",
        the terms of the steps 0 … T−1 and, last, that of the prior: (T + 1,), in bits per dimension, means over the
        batch. Their sum bounds the bits that a lossless code needs for each dimension of an image.

    Source: Ho et al. 2020, equation 5; Nichol & Dhariwal 2021, section 2.1.
    """
    terms: dict[str, list[Tensor]] = {name: [] for name in ("learned", "posterior", "beta")}
    for step in range(diffusion.num_steps):
        t = torch.full((len(x_start),), step, device=x_start.device)
        x_t = diffusion.add_noise(x_start, t, rng.randn(x_start.shape, generator, x_start))
        prediction = diffusion.predict(model(x_t, diffusion.training_timesteps(t), **condition), x_t, t)
        chosen = {
            "learned": prediction.log_variance,
            "posterior": diffusion.coefficient("posterior_log_variance", t, x_t),
            "beta": diffusion.coefficient("log_betas", t, x_t),
        }
        for name, log_var in chosen.items():
            if log_var is not None:
                terms[name].append(bound_terms(diffusion, prediction.x_start, log_var, x_start, x_t, t).mean())
    last = torch.full((len(x_start),), diffusion.num_steps - 1, device=x_start.device)
    mean = diffusion.coefficient("sqrt_alpha_bar", last, x_start) * x_start
    log_var = 2 * diffusion.coefficient("sqrt_one_minus_alpha_bar", last, x_start).log()
    zero = torch.zeros_like(x_start)
    prior = gaussian_kl(mean, log_var, zero, zero).mean() / math.log(2)
    return {name: torch.stack([*values, prior]) for name, values in terms.items() if values}  # (16.19)
