"""The Gaussian forward process, its posterior, and what a network's output says about the clean image.

Letters: `B` batch, `C` channels, `T` timesteps. Tables are float64 of shape (T,), cast and moved where they are used.
"""

from typing import Literal

import torch
from torch import Tensor

from ditbook.diffusion.process import Parameterization, Prediction, Process, check_each, check_same_shape, known
from ditbook.diffusion.schedules import spaced_timesteps

Variance = Literal["beta", "posterior", "learned"]  # of the reverse step


class GaussianDiffusion(Process):
    """A forward process with the noise variances `betas`, and what a network that learns it predicts.

    Args:
        betas: (T,), each in (0, 1). The last may be 1, zero signal-to-noise ratio, unless the network predicts ε.
        timesteps: for a respaced process, the timestep of the training process that each index stands for, (T,). The
            model is called with these.
        predicts: what the network's output means: ε, x₀ or v.
        learn_sigma: the output has twice the channels of the image; the second half are variance logits.
        training: the process that the network was trained on, if this one is a respaced view of it.

    Raises:
        ValueError: fewer than two steps, a β out of range, or an unknown parameterization.

    Source: Ho et al. 2020, section 2.
    """

    def __init__(
        self,
        betas: Tensor,
        timesteps: Tensor | None = None,
        *,
        predicts: Parameterization = "eps",
        learn_sigma: bool = False,
        training: "GaussianDiffusion | None" = None,
    ) -> None:
        super().__init__()
        if betas.ndim != 1 or len(betas) < 2:
            raise ValueError(f"betas must be a list of at least 2 variances, got shape {tuple(betas.shape)}")
        certain = betas[:-1] if known(predicts) != "eps" and betas[-1] == 1 else betas
        if not ((certain > 0) & (certain < 1)).all():
            raise ValueError(
                f"every beta must lie strictly between 0 and 1, got {betas.min():.4g} to {betas.max():.4g}; the last "
                "may be 1 where the network predicts x_start or v"
            )
        self.predicts, self.learn_sigma, self.num_steps = predicts, learn_sigma, len(betas)
        self.timesteps = torch.arange(len(betas)) if timesteps is None else timesteps
        self.training = self if training is None else training
        self.betas = betas.double()
        self.alphas = 1 - self.betas
        self.alpha_bar = self.alphas.cumprod(0)  # (10.2)
        self.alpha_bar_prev = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        self.sqrt_alpha_bar, self.sqrt_one_minus_alpha_bar = self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()
        self.sigmas = self.sqrt_one_minus_alpha_bar / self.sqrt_alpha_bar  # (12.1)
        self.clock = torch.atan2(self.sqrt_one_minus_alpha_bar, self.sqrt_alpha_bar)  # an angle: a is its cosine
        self.log_betas = self.betas.log()
        self.posterior_variance = self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)  # (10.7)
        # The first entry is zero, the last step being certain; for its logarithm the second stands in.
        self.posterior_log_variance = self.posterior_variance[[1, *range(1, self.num_steps)]].log()
        self.posterior_weight_of_start = self.alpha_bar_prev.sqrt() * self.betas / (1 - self.alpha_bar)
        self.posterior_weight_of_noisy = self.alphas.sqrt() * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    def scales(self, i: int) -> tuple[float, float]:
        """√ᾱ and √(1 − ᾱ) at index `i`; 1 and 0 at −1."""
        return (1.0, 0.0) if i < 0 else (self.sqrt_alpha_bar[i].item(), self.sqrt_one_minus_alpha_bar[i].item())

    def add_noise(self, x_start: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Noisy images at step `t`: √ᾱ x₀ + √(1 − ᾱ) ε, the result of t steps of (10.1), one after another.

        Args:
            x_start: clean images, (B, …).
            t: indices, (B,).
            eps: standard normal noise of the shape of `x_start`.

        Raises:
            ValueError: the shapes do not fit, or an index is out of range.

        Source: Ho et al. 2020, equation 4.
        """
        check_same_shape(eps, x_start, "noise", "images")
        a, b = (self.coefficient(name, t, x_start) for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"))
        return a * x_start + b * eps  # (10.3), (10.4)

    def posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, …) and log variance (B, 1, …, 1) of q(x_{t−1} | x_t, x₀).

        The log variance at index 0, where the true one is −∞, is that of index 1.

        Raises:
            ValueError: the shapes do not fit, or an index is out of range.

        Source: Ho et al. 2020, equations 6 and 7.
        """
        check_same_shape(x_start, x_t, "clean image")
        start = self.coefficient("posterior_weight_of_start", t, x_t)
        noisy = self.coefficient("posterior_weight_of_noisy", t, x_t)
        mean = start * x_start + noisy * x_t  # (10.6); with the x₀ that follows from ε it is (10.11)
        return mean, self.coefficient("posterior_log_variance", t, x_t)  # (10.7), (11.7)

    def targets(self, x_start: Tensor, eps: Tensor, t: Tensor) -> Prediction:
        """What a perfect network would predict for the clean images `x_start` under the noise `eps`.

        Raises:
            ValueError: as for `add_noise`.

        Source: Ho et al. 2020, section 3.2; Salimans & Ho 2022, appendix D, for v.
        """
        check_same_shape(eps, x_start, "noise", "images")
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
        check_same_shape(value, x_t)
        a, b = (self.coefficient(name, t, x_t) for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"))
        if known(predicts) == "eps":
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
            ValueError: the output has another shape.

        Source: Nichol & Dhariwal 2021, equation 15, for the variance.
        """
        batch, channels, *sides = x_t.shape
        wanted = (batch, 2 * channels if self.learn_sigma else channels, *sides)
        if output.shape != wanted:
            raise ValueError(
                f"the output has the shape {tuple(output.shape)} and the image {tuple(x_t.shape)}; a process with "
                f"learn_sigma={self.learn_sigma} expects {wanted}"
            )
        if not self.learn_sigma:
            return self.convert(output, x_t, t, self.predicts)
        value, logits = output.chunk(2, dim=1)
        low, high = (self.coefficient(name, t, x_t) for name in ("posterior_log_variance", "log_betas"))
        fraction = (logits + 1) / 2
        log_variance = fraction * high + (1 - fraction) * low  # (16.11)
        prediction = self.convert(value, x_t, t, self.predicts)
        return Prediction(prediction.x_start, prediction.eps, prediction.v, log_variance)

    def reverse_log_variance(
        self, prediction: Prediction, x_t: Tensor, t: Tensor, variance: Variance | None = None
    ) -> Tensor:
        """Log variance of the reverse step, of the shape of `x_t`, or (B, 1, …, 1) where it is fixed beforehand.

        Args:
            prediction: for `x_t`.
            x_t: the noisy image, (B, C, …).
            t: indices, (B,).
            variance: β, the posterior variance, or that of the variance head. By default the head's if the process
                has one, and β otherwise.

        Raises:
            ValueError: an unknown variance, or "learned" without a variance head.
        """
        if variance is None:
            variance = "learned" if self.learn_sigma else "beta"
        if variance == "learned" and prediction.log_variance is not None:
            check_same_shape(prediction.log_variance, x_t, "log variance")
            return prediction.log_variance
        if variance not in ("beta", "posterior"):
            raise ValueError(
                f"variance {variance!r}: take 'beta', 'posterior', or 'learned' where there is a variance head"
            )
        return self.coefficient("log_betas" if variance == "beta" else "posterior_log_variance", t, x_t)

    def respace(self, count: int) -> "GaussianDiffusion":
        """The same process seen at `count` of its steps only: fewer, longer steps with the same ᾱ at each.

        Raises:
            ValueError: `count` is smaller than 2 or larger than the number of steps.

        Source: Nichol & Dhariwal 2021, section 4.
        """
        return self.subsequence(spaced_timesteps(self.num_steps, count))

    def subsequence(self, indices: list[int]) -> "GaussianDiffusion":
        """The same process seen at the given increasing indices only."""
        return self._view(self.alpha_bar[indices], self.timesteps[indices])

    def at_sigmas(self, sigmas: Tensor) -> "GaussianDiffusion":
        """The same process seen at the noise levels σ = √(1/ᾱ − 1) only, whatever its own are.

        Args:
            sigmas: increasing, (T,), such as `schedules.karras_sigmas`. The model is called with fractions of
                timesteps, those of `timesteps_of`.

        Raises:
            ValueError: fewer than two levels, or levels that do not increase from above 0.
        """
        return self._view(1 / (1 + sigmas.double().square()), self.timesteps_of(sigmas).float())

    def timesteps_of(self, sigmas: Tensor) -> Tensor:
        """Timesteps, float64, of noise levels σ: between those of the training process linear in log σ.

        Levels beyond its first and last get their timesteps. Source: Karras et al. 2022, code of k-diffusion.
        """
        log_sigmas, wanted = self.training.sigmas.log(), sigmas.double().log().contiguous()
        low = torch.searchsorted(log_sigmas, wanted, right=True).sub(1).clamp(0, len(log_sigmas) - 2)
        fraction = (wanted - log_sigmas[low]) / (log_sigmas[low + 1] - log_sigmas[low])
        return low + fraction.nan_to_num(nan=1.0).clamp(0, 1)  # ∞ of ∞ is the last level

    def sigmas_of(self, timesteps: Tensor, x: Tensor) -> Tensor:
        """Noise levels σ of timesteps (B,), shaped to multiply `x`: (B, 1, …, 1). The inverse of `timesteps_of`.

        Raises:
            ValueError: timesteps of another shape.
        """
        check_each(timesteps, x, "timesteps")
        table = self.training.table("sigmas", x.dtype, x.device)
        whole = timesteps.long()
        low, high = (table[index.clamp(0, len(table) - 1)] for index in (whole, whole + 1))
        between = low.log().lerp(high.log(), (timesteps - whole).to(x.dtype)).exp()
        return torch.where(timesteps == whole, low, between).view(-1, *[1] * (x.ndim - 1))

    def _view(self, alpha_bar: Tensor, timesteps: Tensor) -> "GaussianDiffusion":
        previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        return GaussianDiffusion(
            1 - alpha_bar / previous,
            timesteps,
            predicts=self.predicts,
            learn_sigma=self.learn_sigma,
            training=self.training,
        )
