"""The variational bound on −log p(x₀), term by term, and timesteps sampled where its terms are large.

Letters: `B` batch, `C` channels, `T` timesteps.
"""

import math

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.gaussian import GaussianDiffusion, Variance
from ditbook.diffusion.process import Model, check_fits, check_same_shape


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
        log_var: log variance of the reverse step, of the same shape or (B, 1, …, 1).
        x_start: the true clean images.
        x_t: the noisy images.
        t: indices, (B,).

    Raises:
        ValueError: the shapes do not fit.

    Source: Ho et al. 2020, equation 5; Nichol & Dhariwal 2021, section 2.1.
    """
    if log_var.ndim != x_t.ndim or len(log_var) != len(x_t):
        raise ValueError(f"log variance {tuple(log_var.shape)} and noisy image {tuple(x_t.shape)} differ in shape")
    check_fits(log_var, x_t, "log variance")
    true_mean, true_log_var = diffusion.posterior(x_start, x_t, t)
    mean, _ = diffusion.posterior(predicted, x_t, t)
    kl = gaussian_kl(true_mean, true_log_var.expand_as(x_t), mean, log_var).flatten(1).mean(1)
    nll = discretized_nll(x_start, mean, log_var).flatten(1).mean(1)
    return torch.where(t == 0, nll, kl) / math.log(2)  # (10.8), (11.8)


@torch.no_grad()
def variational_bound(
    model: Model, diffusion: GaussianDiffusion, x_start: Tensor, generator: torch.Generator, **condition: Tensor
) -> dict[Variance, Tensor]:
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
    variances: list[Variance] = ["learned", "posterior", "beta"] if diffusion.learn_sigma else ["posterior", "beta"]
    terms: dict[Variance, list[Tensor]] = {name: [] for name in variances}
    for step in range(diffusion.num_steps):
        t = torch.full((len(x_start),), step, device=x_start.device)
        x_t = diffusion.add_noise(x_start, t, rng.randn(x_start.shape, generator, x_start))
        prediction = diffusion.predict(model(x_t, diffusion.training_timesteps(t), **condition), x_t, t)
        for name in terms:
            log_var = diffusion.reverse_log_variance(prediction, x_t, t, name)
            terms[name].append(bound_terms(diffusion, prediction.x_start, log_var, x_start, x_t, t).mean())
    last = torch.full((len(x_start),), diffusion.num_steps - 1, device=x_start.device)
    mean = diffusion.coefficient("sqrt_alpha_bar", last, x_start) * x_start
    log_var = 2 * diffusion.coefficient("sqrt_one_minus_alpha_bar", last, x_start).log()
    zero = torch.zeros_like(x_start)
    prior = gaussian_kl(mean, log_var, zero, zero).mean() / math.log(2)
    return {name: torch.stack([*values, prior]) for name, values in terms.items()}  # (16.19)


class ImportantTimesteps:
    """Sample timesteps in proportion to the root mean square of the last losses at each, and weigh them accordingly.

    Until every timestep has as many losses as are kept, all are equally likely.

    Args:
        num_steps: T.
        device: where losses are kept and timesteps sampled.
        keep: losses of each timestep that count.
        uniform: fraction of the samples that stays uniform, so that no timestep is forgotten.

    Source: Nichol & Dhariwal 2021, equation 18; the uniform fraction is that of its code.
    """

    def __init__(self, num_steps: int, device: torch.device, *, keep: int = 10, uniform: float = 0.001) -> None:
        self.num_steps, self.keep, self.uniform = num_steps, keep, uniform
        self.losses = torch.zeros(num_steps * keep + 1, device=device)  # the last entry takes what is not kept
        self.counts = torch.zeros(num_steps, dtype=torch.int64, device=device)

    def probabilities(self) -> Tensor:
        """The probability of each timestep, (T,)."""
        root = self.losses[:-1].view(self.num_steps, self.keep).square().mean(1).sqrt()
        known = ((self.counts >= self.keep).all() & (root.sum() > 0)).to(root.dtype)
        weight = known * (1 - self.uniform)
        important = root / root.sum().clamp(min=torch.finfo(root.dtype).tiny)  # (11.14)
        return weight * important + (1 - weight) / self.num_steps

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps (count,), and the weights (count,), 1 / (T p), with which the mean of their losses has no bias."""
        p = self.probabilities()
        t = torch.searchsorted(p.cumsum(0), rng.rand((count,), generator, p.device), right=True)
        t = t.clamp(max=self.num_steps - 1)
        return t, 1 / (self.num_steps * p[t])

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Keep the losses (B,) of the timesteps `t` (B,), before they are weighted.

        Raises:
            ValueError: not one loss for each timestep.
        """
        check_same_shape(losses, t, "losses", "timesteps")
        same = t[:, None] == t[None, :]  # (B, B)
        before = same.tril(-1).sum(1)  # samples of the same timestep earlier in the batch
        newest = before >= same.sum(1) - self.keep
        slot = t * self.keep + (self.counts[t] + before) % self.keep
        slot = torch.where(newest, slot, self.num_steps * self.keep)
        self.losses = self.losses.scatter(0, slot, losses.detach().to(self.losses.dtype))
        self.counts = self.counts.scatter_add(0, t, torch.ones_like(t))
