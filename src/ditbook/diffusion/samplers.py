"""From a model to samples: one loop, and steps that fit into it.

A step is a function `step(x, i, run) → x` that takes the noisy images of index `i` to those of index i − 1. It calls
`run.denoise(x, i)` as often as it likes, draws noise by `run.noise(x)` and finds earlier predictions in `run.history`.
Hyperparameters of a step are bound by `functools.partial(ddim, eta=1.0)`; a step may wrap another one.
Letters: `B` batch, `C` channels.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ditbook import rng
from ditbook.diffusion.gaussian import GaussianDiffusion, Model, Prediction

ORDER = 4  # predictions that `Run.history` keeps: enough for a multistep method of that order


@dataclass
class Run:
    """One run of a sampler: what its steps may use.

    Args:
        model: `model(x, t, **condition)`.
        diffusion: the process, respaced or not.
        condition: passed to the model, each (B, …).
        clip: bound of the predicted clean image, or None.
        generator: source of fresh noise, or None for deterministic steps.
    """

    model: Model
    diffusion: GaussianDiffusion
    condition: Mapping[str, Tensor]
    clip: float | None
    generator: torch.Generator | None
    history: deque[Prediction] = field(default_factory=lambda: deque(maxlen=ORDER))  # newest last

    def timesteps(self, x: Tensor, i: int) -> Tensor:
        """The index `i` for each sample, (B,)."""
        return torch.full((len(x),), i, device=x.device)

    def denoise(self, x: Tensor, i: int) -> Prediction:
        """The model's prediction for `x` at index `i`, its clean image clipped if the run clips."""
        t = self.timesteps(x, i)
        output = self.model(x, self.diffusion.training_timesteps(t), **self.condition)
        prediction = self.diffusion.predict(output, x, t)
        if self.clip is not None:
            bounded = self.diffusion.convert(prediction.x_start.clamp(-self.clip, self.clip), x, t, "x_start")
            prediction = Prediction(bounded.x_start, bounded.eps, bounded.v, prediction.log_variance)
        self.history.append(prediction)
        return prediction

    def noise(self, x: Tensor) -> Tensor:
        """Fresh standard normal noise of the shape of `x`.

        Raises:
            ValueError: the run has no generator.
        """
        if self.generator is None:
            raise ValueError("this step draws noise: pass generator=torch.Generator().manual_seed(…)")
        return rng.randn(x.shape, self.generator, x)


Step = Callable[[Tensor, int, Run], Tensor]


@dataclass(frozen=True)
class Frame:
    """The state of a run after a step: the index it left, the noisy images now, and the last prediction."""

    i: int
    x: Tensor
    prediction: Prediction


def ddpm(x: Tensor, i: int, run: Run, *, variance: Literal["beta", "posterior", "learned"] | None = None) -> Tensor:
    """Ancestral sampling: the posterior mean of the predicted clean image, and fresh noise.

    Args:
        variance: of the noise: β, the posterior variance, or that of the variance head. By default the head's if the
            process has one, and β otherwise.

    Raises:
        ValueError: an unknown variance, or "learned" without a variance head.

    Source: Ho et al. 2020, algorithm 2; Nichol & Dhariwal 2021 for the learned variance.
    """
    diffusion, t = run.diffusion, run.timesteps(x, i)
    prediction = run.denoise(x, i)
    mean, log_variance = diffusion.posterior(prediction.x_start, x, t)
    if variance is None:
        variance = "learned" if diffusion.learn_sigma else "beta"
    if variance == "learned" and prediction.log_variance is not None:
        log_variance = prediction.log_variance
    elif variance == "beta":
        log_variance = diffusion.coefficient("log_betas", t, x)
    elif variance != "posterior":
        raise ValueError(
            f"variance {variance!r}: take 'beta', 'posterior', or 'learned' where there is a variance head"
        )
    return mean + (0.5 * log_variance).exp() * run.noise(x) if i > 0 else mean  # (10.14)


def ddim(x: Tensor, i: int, run: Run, *, eta: float = 0.0) -> Tensor:
    """Implicit sampling: with `eta` = 0 the starting noise determines the image, and few steps are enough.

    Args:
        eta: 0 adds no noise, 1 as much as `ddpm` with the posterior variance. A variance head is ignored.

    Source: Song et al. 2021, equations 12 and 16.
    """
    prediction = run.denoise(x, i)
    before, now = run.diffusion.alpha_bar_prev[i].item(), run.diffusion.alpha_bar[i].item()
    sigma = eta * ((1 - before) / (1 - now) * (1 - now / before)) ** 0.5
    x = before**0.5 * prediction.x_start + max(0.0, 1 - before - sigma**2) ** 0.5 * prediction.eps
    return x + sigma * run.noise(x) if eta > 0 and i > 0 else x


@torch.no_grad()
def progressive(
    model: Model,
    x: Tensor,
    diffusion: GaussianDiffusion,
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
    diffusion: GaussianDiffusion,
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
