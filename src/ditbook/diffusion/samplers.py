"""From a model to samples: one loop, and steps that fit into it. More steps are in `solvers` and `flow`.

A step is a function `step(x, i, run) → x` that takes the noisy images of index `i` to those of index i − 1. It calls
`run.denoise(x, i)` as often as it likes, draws noise by `run.noise(x)` and finds earlier predictions in `run.history`.
Hyperparameters of a step are bound by `functools.partial(ddim, eta=1.0)`; a step may wrap another one.
Letters: `B` batch, `C` channels.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ditbook import rng
from ditbook.diffusion.gaussian import GaussianDiffusion, Variance
from ditbook.diffusion.process import Model, Prediction, Process

ORDER = 4  # predictions that `Run.history` keeps: enough for a multistep method of that order
P = TypeVar("P", bound=Process)


@dataclass
class Run(Generic[P]):
    """One run of a sampler: what its steps may use.

    Args:
        model: `model(x, t, **condition)`.
        diffusion: the process, respaced or not.
        condition: passed to the model, each (B, …).
        clip: bound of the predicted clean image, or None.
        generator: source of fresh noise, or None for deterministic steps.
    """

    model: Model
    diffusion: P
    condition: Mapping[str, Tensor]
    clip: float | None
    generator: torch.Generator | None
    history: deque[Prediction] = field(default_factory=lambda: deque(maxlen=ORDER))  # newest last
    levels: deque[float] = field(default_factory=lambda: deque(maxlen=ORDER))  # and the noise level σ of each
    _noisier: dict[float, P] = field(default_factory=dict)

    def timesteps(self, x: Tensor, i: int) -> Tensor:
        """The index `i` for each sample, (B,)."""
        return torch.full((len(x),), i, device=x.device)

    def denoise(self, x: Tensor, i: int, process: P | None = None) -> Prediction:
        """The model's prediction for `x` at index `i`, its clean image clipped if the run clips.

        Args:
            process: whose index it is; by default that of the run, or one of `noisier`.
        """
        process, t = process or self.diffusion, self.timesteps(x, i)
        output = self.model(x, process.training_timesteps(t), **self.condition)
        prediction = process.predict(output, x, t)
        if self.clip is not None:
            bounded = process.convert(prediction.x_start.clamp(-self.clip, self.clip), x, t, "x_start")
            prediction = Prediction(bounded.x_start, bounded.eps, bounded.v, prediction.log_variance)
        self.history.append(prediction)
        self.levels.append(process.sigmas[i].item())
        return prediction

    def noisier(self, factor: float) -> P:
        """The process whose noise level σ at each index is `factor` times that of the run's."""
        if factor not in self._noisier:
            self._noisier[factor] = self.diffusion.at_sigmas(factor * self.diffusion.sigmas)
        return self._noisier[factor]

    def noise(self, x: Tensor) -> Tensor:
        """Fresh standard normal noise of the shape of `x`.

        Raises:
            ValueError: the run has no generator.
        """
        if self.generator is None:
            raise ValueError("this step draws noise: pass generator=torch.Generator().manual_seed(…)")
        return rng.randn(x.shape, self.generator, x)


Step = Callable[[Tensor, int, Run[Any]], Tensor]


@dataclass(frozen=True)
class Frame:
    """The state of a run after a step: the index it left, the noisy images now, and the last prediction."""

    i: int
    x: Tensor
    prediction: Prediction


def ddpm(x: Tensor, i: int, run: Run[GaussianDiffusion], *, variance: Variance | None = None) -> Tensor:
    """Ancestral sampling: the posterior mean of the predicted clean image, and fresh noise.

    Args:
        variance: of the noise: β, the posterior variance, or that of the variance head. By default the head's if the
            process has one, and β otherwise.

    Raises:
        ValueError: an unknown variance, or "learned" without a variance head.

    Source: Ho et al. 2020, algorithm 2; Nichol & Dhariwal 2021 for the learned variance.
    """
    t, prediction = run.timesteps(x, i), run.denoise(x, i)
    mean, _ = run.diffusion.posterior(prediction.x_start, x, t)
    log_variance = run.diffusion.reverse_log_variance(prediction, x, t, variance)
    return mean + (0.5 * log_variance).exp() * run.noise(x) if i > 0 else mean  # (10.14)


def ddim(x: Tensor, i: int, run: Run[P], *, eta: float = 0.0) -> Tensor:
    """Implicit sampling: with `eta` = 0 the starting noise determines the image, and few steps are enough.

    On straight paths it is Euler's step along the velocity.

    Args:
        eta: 0 adds no noise, 1 as much as `ddpm` with the posterior variance. A variance head is ignored.

    Source: Song et al. 2021, equations 12 and 16.
    """
    prediction = run.denoise(x, i)
    (a, b), (a_next, b_next) = run.diffusion.scales(i), run.diffusion.scales(i - 1)
    sigma = eta * b_next / b * max(0.0, b**2 - (a * b_next / a_next) ** 2) ** 0.5  # for short steps that of (12.3)
    x = a_next * prediction.x_start + max(0.0, b_next**2 - sigma**2) ** 0.5 * prediction.eps  # (12.4) with eta = 0
    return x + sigma * run.noise(x) if eta > 0 and i > 0 else x


@torch.no_grad()
def progressive(
    model: Model,
    x: Tensor,
    diffusion: Process,
    *,
    step: Step = ddim,
    clip: float | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
    **condition: Tensor,
) -> Iterator[Frame]:
    """Run a sampler and give the state after each step.

    Args:
        model: `model(x, t, **condition)`; wrap it in `ClassifierFreeGuidance` for guidance.
        x: standard normal noise, (B, C, …), at the last index of `diffusion`.
        diffusion: the process. For fewer steps pass `diffusion.respace(count)`.
        step: the sampler.
        clip: bound of the predicted clean image, 1 for pixels in [−1, 1]; none for latents.
        generator: source of fresh noise, for steps that draw any.
        progress: show a bar.
        condition: passed to the model, each (B, …).

    Returns:
        An iterator over `Frame`; the last one holds the samples.
    """
    run = Run(model, diffusion, condition, clip, generator)
    for i in tqdm(reversed(range(diffusion.num_steps)), total=diffusion.num_steps, disable=not progress):
        x = step(x, i, run)
        yield Frame(i, x, run.history[-1])


def sample(
    model: Model,
    x: Tensor,
    diffusion: Process,
    *,
    step: Step = ddim,
    clip: float | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
    **condition: Tensor,
) -> Tensor:
    """Samples (B, C, …) from noise: the last frame of `progressive`, which has the same arguments."""
    frames = progressive(model, x, diffusion, step=step, clip=clip, generator=generator, progress=progress, **condition)
    return deque(frames, maxlen=1).pop().x
