"""The variational bound, term by term.

Letters: `B` batch, `C` channels, `T` timesteps.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ditbook.diffusion.gaussian import GaussianDiffusion, split_variance

Model = Callable[..., Tensor]


def gaussian_kl(mean_1: Tensor, log_var_1: Tensor, mean_2: Tensor, log_var_2: Tensor) -> Tensor:
    """KL(N₁ ‖ N₂) of Gaussians with diagonal covariance, for each element, in nats."""
    ratio = (log_var_1 - log_var_2).exp()
    return 0.5 * (ratio + (mean_1 - mean_2).square() * (-log_var_2).exp() - 1 + log_var_2 - log_var_1)


def discretised_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
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
    diffusion: GaussianDiffusion, eps: Tensor, log_var: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """The term of the variational bound at each sample's timestep, in bits per dimension, (B,).

    A KL divergence from the posterior for t > 0, the likelihood of the pixels for t = 0.

    Source: Ho et al. 2020, equation 5; Nichol & Dhariwal 2021, section 2.1.
    """
    true_mean, _ = diffusion.posterior(x_start, x_t, t)
    true_log_var = diffusion.at(diffusion.posterior_log_variance, t, x_t).expand_as(x_t)
    mean, _ = diffusion.posterior(diffusion.predict(eps, x_t, t, "eps").x_start, x_t, t)
    kl = gaussian_kl(true_mean, true_log_var, mean, log_var).flatten(1).mean(1)
    nll = discretised_nll(x_start, mean, log_var).flatten(1).mean(1)
    return torch.where(t == 0, nll, kl) / math.log(2)


@torch.no_grad()
def variational_bound(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    generator: torch.Generator | None = None,
    **condition: Tensor,
) -> dict[str, Tensor]:
    """The whole bound on −log p(x₀), term by term, with one call of the model for each step.

    Args:
        model: `model(x, t, **condition)` → (B, 2·C, …): noise, then variance logits.
        x_start: clean images, (B, C, …).
        generator: draws one noise for each image and step.

    Returns:
        For each choice of the variance, "learned" (the model's own), "posterior" and "beta" (the two that are fixed
        beforehand), the terms of the steps 0 … T−1 and, last, that of the prior: (T + 1,), in bits per dimension,
        means over the batch. Their sum bounds the bits that a lossless code needs for each dimension of an image.

    Source: Ho et al. 2020, equation 5; Nichol & Dhariwal 2021, section 2.1.
    """
    terms: dict[str, list[Tensor]] = {"learned": [], "posterior": [], "beta": []}
    fixed = {"posterior": diffusion.posterior_log_variance, "beta": diffusion.betas.log()}
    for step in range(diffusion.num_steps):
        t = torch.full((len(x_start),), step, device=x_start.device)
        eps = torch.randn(x_start.shape, generator=generator, device=x_start.device)
        x_t = diffusion.add_noise(x_start, t, eps)
        predicted, learned = split_variance(diffusion, model(x_t, diffusion.model_time(t), **condition), x_t, t)
        chosen = {"learned": learned} | {name: diffusion.at(table, t, x_t) for name, table in fixed.items()}
        for name, log_var in chosen.items():
            terms[name].append(bound_terms(diffusion, predicted, log_var, x_start, x_t, t).mean())
    kept = diffusion.alpha_bar[-1].to(x_start)
    spread = (1 - kept).log().expand_as(x_start)
    prior = gaussian_kl(kept.sqrt() * x_start, spread, torch.zeros_like(x_start), torch.zeros_like(x_start))
    return {name: torch.stack([*values, prior.mean() / math.log(2)]) for name, values in terms.items()}  # (16.19)
