"""The Gaussian forward process, its posterior, and what a network's output says about the clean image.

Letters: `B` batch, `C` channels, `T` timesteps. Tables are float64 of shape (T,), cast and moved where they are used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ditbook.diffusion.schedules import spaced_timesteps

Parameterization = Literal["eps", "x_start", "v"]
Model = Callable[..., Tensor]  # model(x, t, **condition), t in training timesteps


@dataclass(frozen=True)
class Prediction:
    """One prediction as x₀, ε and v, each of the image's shape, and the log variance of a variance head."""

    x_start: Tensor
    eps: Tensor
    v: Tensor
    log_variance: Tensor | None = None


class GaussianDiffusion:
    """A forward process with the noise variances `betas`, and what a network that learns it predicts.

    Args:
        betas: (T,), each in (0, 1).
        timesteps: for a respaced process, the timestep of the training process that each index stands for, (T,). The
            model is called with these.
        predicts: what the network's output means: ε, x₀ or v.
        learn_sigma: the output has twice the channels of the image; the second half are variance logits.

    Raises:
        ValueError: fewer than two steps, a β outside (0, 1), or an unknown parameterization.

    Source: Ho et al. 2020, section 2.
    """

    def __init__(
        self,
        betas: Tensor,
        timesteps: Tensor | None = None,
        *,
        predicts: Parameterization = "eps",
        learn_sigma: bool = False,
    ) -> None:
        if betas.ndim != 1 or len(betas) < 2:
            raise ValueError(f"betas must be a list of at least 2 variances, got shape {tuple(betas.shape)}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"every beta must lie strictly between 0 and 1, got {betas.min():.4g} to {betas.max():.4g}"
            )
        self.predicts, self.learn_sigma, self.num_steps = _known(predicts), learn_sigma, len(betas)
        self.timesteps = torch.arange(len(betas)) if timesteps is None else timesteps
        self.betas = betas.double()
        self.alphas = 1 - self.betas
        self.alpha_bar = self.alphas.cumprod(0)  # (10.2)
        self.alpha_bar_prev = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        self.sqrt_alpha_bar, self.sqrt_one_minus_alpha_bar = self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()
        self.log_betas = self.betas.log()
        self.posterior_variance = self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)  # (10.7)
        # The first entry is zero, the last step being certain; for its logarithm the second stands in.
        self.posterior_log_variance = self.posterior_variance[[1, *range(1, self.num_steps)]].log()
        self.posterior_weight_of_start = self.alpha_bar_prev.sqrt() * self.betas / (1 - self.alpha_bar)
        self.posterior_weight_of_noisy = self.alphas.sqrt() * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)
        self._cast: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def coefficient(self, name: str, t: Tensor, x: Tensor) -> Tensor:
        """Entries `t` (B,) of the table `name`, shaped to multiply `x`: (B, 1, …, 1), of its type and device.

        Raises:
            ValueError: `t` has another shape, or an index outside 0 … T − 1. The range is checked for indices on the
                CPU; elsewhere the check would make the accelerator wait.
        """
        if t.shape != x.shape[:1]:
            raise ValueError(f"timesteps of shape {tuple(t.shape)} for {len(x)} samples; expected ({len(x)},)")
        if t.device.type == "cpu" and t.numel() and not 0 <= int(t.min()) <= int(t.max()) < self.num_steps:
            raise ValueError(f"timestep out of range: {t.tolist()} must lie in 0 to {self.num_steps - 1}")
        return self._table(name, x.dtype, x.device)[t].view(-1, *[1] * (x.ndim - 1))

    def _table(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The table `name`, cast first (not every device has float64) and moved once."""
        key = name, dtype, device
        if key not in self._cast:
            self._cast[key] = getattr(self, name).to(dtype).to(device)
        return self._cast[key]

    def add_noise(self, x_start: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Noisy images at step `t`: √ᾱ x₀ + √(1 − ᾱ) ε, the result of t steps of (10.1), one after another.

        Args:
            x_start: clean images, (B, …).
            t: indices, (B,).
            eps: standard normal noise of the shape of `x_start`.

        Source: Ho et al. 2020, equation 4.
        """
        a, b = (self.coefficient(name, t, x_start) for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"))
        return a * x_start + b * eps  # (10.3), (10.4)

    def posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, …) and log variance (B, 1, …, 1) of q(x_{t−1} | x_t, x₀).

        The log variance at index 0, where the true one is −∞, is that of index 1.

        Source: Ho et al. 2020, equations 6 and 7.
        """
        start = self.coefficient("posterior_weight_of_start", t, x_t)
        noisy = self.coefficient("posterior_weight_of_noisy", t, x_t)
        mean = start * x_start + noisy * x_t  # (10.6); with the x₀ that follows from ε it is (10.11)
        return mean, self.coefficient("posterior_log_variance", t, x_t)  # (10.7)

    def targets(self, x_start: Tensor, eps: Tensor, t: Tensor) -> Prediction:
        """What a perfect network would predict for the clean images `x_start` under the noise `eps`.

        Source: Ho et al. 2020, section 3.2; Salimans & Ho 2022, appendix D, for v.
        """
        a, b = (self.coefficient(name, t, x_start) for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"))
        return Prediction(x_start, eps, a * eps - b * x_start)  # (10.13)

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, predicts: Parameterization) -> Prediction:
        """Turn one of ε, x₀ and v into all three.

        Args:
            value: a prediction of the shape of `x_t`.
            x_t: the noisy image, (B, …).
            t: indices, (B,).
            predicts: what `value` is: `"eps"`, `"x_start"` or `"v"`.

        Raises:
            ValueError: another parameterization, or shapes that differ.

        Source: Ho et al. 2020, equation 15; Salimans & Ho 2022, section 4 for v = √ᾱ ε − √(1 − ᾱ) x₀.
        """
        if value.shape != x_t.shape:
            raise ValueError(f"prediction {tuple(value.shape)} and noisy image {tuple(x_t.shape)} differ in shape")
        a, b = (self.coefficient(name, t, x_t) for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"))
        if _known(predicts) == "eps":
            x_start, eps = (x_t - b * value) / a, value  # (10.10)
        elif predicts == "x_start":
            x_start, eps = value, (x_t - a * value) / b
        else:
            x_start, eps = a * x_t - b * value, b * x_t + a * value
        return Prediction(x_start, eps, a * eps - b * x_start)  # (10.13)

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """Read a network's output as this process defines it: by `predicts`, and with a variance head if there is one.

        The variance logits in [−1, 1] interpolate, on a log scale, between the posterior variance (−1) and β (1).

        Args:
            output: (B, C, …), or (B, 2·C, …) with `learn_sigma`.
            x_t: the noisy image that the network was given, (B, C, …).
            t: indices, (B,).

        Raises:
            ValueError: the output has other channels.

        Source: Nichol & Dhariwal 2021, equation 15, for the variance.
        """
        heads = 2 if self.learn_sigma else 1
        if output.shape[1] != heads * x_t.shape[1]:
            raise ValueError(
                f"the output has {output.shape[1]} channels and the image {x_t.shape[1]}; a process with "
                f"learn_sigma={self.learn_sigma} expects {heads * x_t.shape[1]}"
            )
        if not self.learn_sigma:
            return self.convert(output, x_t, t, self.predicts)
        value, logits = output.chunk(2, dim=1)
        low, high = (self.coefficient(name, t, x_t) for name in ("posterior_log_variance", "log_betas"))
        fraction = (logits + 1) / 2
        log_variance = fraction * high + (1 - fraction) * low  # (16.11)
        prediction = self.convert(value, x_t, t, self.predicts)
        return Prediction(prediction.x_start, prediction.eps, prediction.v, log_variance)

    def training_timesteps(self, t: Tensor) -> Tensor:
        """The timesteps of the training process that the indices `t` stand for, which the model takes."""
        return self._table("timesteps", torch.int64, t.device)[t]

    def respace(self, count: int) -> "GaussianDiffusion":
        """The same process seen at `count` of its steps only: fewer, longer steps with the same ᾱ at each.

        Raises:
            ValueError: `count` is smaller than 2 or larger than the number of steps.

        Source: Nichol & Dhariwal 2021, section 4.
        """
        return self.subsequence(spaced_timesteps(self.num_steps, count))

    def subsequence(self, indices: list[int]) -> "GaussianDiffusion":
        """The same process seen at the given increasing indices only."""
        alpha_bar = self.alpha_bar[indices]
        previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        return GaussianDiffusion(
            1 - alpha_bar / previous,
            self.timesteps[indices],
            predicts=self.predicts,
            learn_sigma=self.learn_sigma,
        )


def _known(predicts: Parameterization) -> Parameterization:
    if predicts not in ("eps", "x_start", "v"):
        raise ValueError(f"parameterization {predicts!r} is unknown; take 'eps', 'x_start' or 'v'")
    return predicts
