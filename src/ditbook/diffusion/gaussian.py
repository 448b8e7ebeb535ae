"""The Gaussian forward process, its posterior, and what a network's output says about the clean image.

Letters: `B` batch, `T` timesteps. Tables are float64 of shape (T,) and are cast to the image's type where used.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ditbook.diffusion.schedules import spaced_timesteps

Parameterization = Literal["eps", "x_start", "v"]


@dataclass(frozen=True)
class Prediction:
    """The same prediction told in three ways, each of the image's shape."""

    x_start: Tensor
    eps: Tensor
    v: Tensor


class GaussianDiffusion:
    """A forward process with the noise variances `betas`.

    Args:
        betas: (T,), each in (0, 1).
        timesteps: for a respaced process, the timestep of the training process that each index stands for, (T,).
            The model is always asked about these.

    Raises:
        ValueError: fewer than two steps, or a β outside (0, 1).

    Source: Ho et al. 2020, section 2.
    """

    def __init__(self, betas: Tensor, timesteps: Tensor | None = None) -> None:
        if betas.ndim != 1 or len(betas) < 2:
            raise ValueError(f"betas must be a list of at least 2 variances, got shape {tuple(betas.shape)}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"every beta must lie strictly between 0 and 1, got {betas.min():.4g} to {betas.max():.4g}"
            )
        self.betas = betas.double()
        self.timesteps = torch.arange(len(betas)) if timesteps is None else timesteps
        self.num_steps = len(betas)
        self.alphas = 1 - self.betas
        self.alpha_bar = self.alphas.cumprod(0)  # (10.2)
        self.alpha_bar_prev = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        self.posterior_variance = self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)  # (10.7)
        # The first entry is zero, the last step being certain; for its logarithm the second stands in.
        self.posterior_log_variance = self.posterior_variance[[1, *range(1, self.num_steps)]].log()
        self.snr = self.alpha_bar / (1 - self.alpha_bar)

    def at(self, table: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """Look `table` up at the indices `t` (B,), shaped to multiply `x`: (B, 1, …, 1), of its type and device.

        Raises:
            ValueError: an index is outside 0 … T − 1.
        """
        if t.numel() and (int(t.min()) < 0 or int(t.max()) >= self.num_steps):
            raise ValueError(f"timestep out of range: {t.tolist()} must lie in 0 to {self.num_steps - 1}")
        return table[t.cpu()].to(x).view(-1, *[1] * (x.ndim - 1))

    def add_noise(self, x_start: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Jump from the clean image to step `t` in one go: √ᾱ x₀ + √(1 − ᾱ) ε.

        Args:
            x_start: clean images, (B, …).
            t: indices, (B,).
            eps: standard normal noise of the shape of `x_start`.

        Source: Ho et al. 2020, equation 4.
        """
        return self.at(self.alpha_bar.sqrt(), t, x_start) * x_start + self.at((1 - self.alpha_bar).sqrt(), t, eps) * eps

    def posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t−1} | x_t, x₀). The variance has shape (B, 1, …, 1).

        Source: Ho et al. 2020, equations 6 and 7.
        """
        start = self.alpha_bar_prev.sqrt() * self.betas / (1 - self.alpha_bar)
        noisy = self.alphas.sqrt() * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)
        mean = self.at(start, t, x_t) * x_start + self.at(noisy, t, x_t) * x_t  # (10.6)
        return mean, self.at(self.posterior_variance, t, x_t)

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor, parameterization: Parameterization) -> Prediction:
        """Turn a network's output into x₀, ε and v.

        Args:
            output: what the network said, of the shape of `x_t`.
            x_t: the noisy image it was asked about, (B, …).
            t: indices, (B,).
            parameterization: what the output means: `"eps"`, `"x_start"` or `"v"`.

        Raises:
            ValueError: another parameterization, or shapes that differ.

        Source: Ho et al. 2020, equation 15; Salimans & Ho 2022, section 4 for v = √ᾱ ε − √(1 − ᾱ) x₀.
        """
        if output.shape != x_t.shape:
            raise ValueError(f"output {tuple(output.shape)} and noisy image {tuple(x_t.shape)} differ in shape")
        a, b = self.at(self.alpha_bar.sqrt(), t, x_t), self.at((1 - self.alpha_bar).sqrt(), t, x_t)
        if parameterization == "eps":
            x_start, eps = (x_t - b * output) / a, output  # (10.10)
        elif parameterization == "x_start":
            x_start, eps = output, (x_t - a * output) / b
        elif parameterization == "v":
            x_start, eps = a * x_t - b * output, b * x_t + a * output
        else:
            raise ValueError(f"parameterization {parameterization!r} is unknown; take 'eps', 'x_start' or 'v'")
        return Prediction(x_start, eps, a * eps - b * x_start)  # (10.13)

    def model_time(self, t: Tensor) -> Tensor:
        """The training timesteps that the indices `t` stand for: what the model is asked about."""
        return self.timesteps.to(t.device)[t]

    def respace(self, count: int) -> "GaussianDiffusion":
        """The same process seen at `count` of its steps only: fewer, longer steps with the same ᾱ at each.

        Raises:
            ValueError: `count` is smaller than 2 or larger than the number of steps.

        Source: Nichol & Dhariwal 2021, section 4.
        """
        return self.at_timesteps(spaced_timesteps(self.num_steps, count))

    def at_timesteps(self, indices: list[int]) -> "GaussianDiffusion":
        """The same process seen at the given increasing indices only."""
        alpha_bar = self.alpha_bar[indices]
        previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        return GaussianDiffusion(1 - alpha_bar / previous, self.timesteps[indices])


def split_variance(diffusion: GaussianDiffusion, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Cut an output of 2·C channels into the noise and the log variance it stands for.

    The logits v in [−1, 1] interpolate, on a log scale, between the posterior variance (−1) and β (1).

    Raises:
        ValueError: the output has not twice the channels of the image.

    Source: Nichol & Dhariwal 2021, equation 15.
    """
    if output.shape[1] != 2 * x_t.shape[1]:
        raise ValueError(f"{output.shape[1]} channels; a variance head gives twice the image's {x_t.shape[1]}")
    eps, logits = output.chunk(2, dim=1)
    share = (logits + 1) / 2
    low, high = diffusion.at(diffusion.posterior_log_variance, t, x_t), diffusion.at(diffusion.betas.log(), t, x_t)
    return eps, share * high + (1 - share) * low  # (16.11)
