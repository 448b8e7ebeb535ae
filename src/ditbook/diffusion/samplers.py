"""Samplers, all of one signature: `sampler(model, x, diffusion, *, generator, clip, …, **condition)`.

They start from noise `x` at the last step of `diffusion` and return images. For fewer steps pass
`diffusion.respace(count)`. A model with twice the channels of `x` is taken to have a variance head.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ditbook.diffusion.gaussian import GaussianDiffusion, Parameterization, Prediction, split_variance

Model = Callable[..., Tensor]
Callback = Callable[[int, Tensor, Prediction], None]


def _ask(
    model: Model,
    x: Tensor,
    t: Tensor,
    diffusion: GaussianDiffusion,
    parameterization: Parameterization,
    clip: float | None,
    condition: dict[str, Tensor],
) -> tuple[Prediction, Tensor | None]:
    """Query the model; give its prediction, x₀ clipped if asked, and its log variance if it has that head."""
    output = model(x, diffusion.model_time(t), **condition)
    log_var = None
    if output.shape[1] == 2 * x.shape[1]:
        output, log_var = split_variance(diffusion, output, x, t)
    prediction = diffusion.predict(output, x, t, parameterization)
    if clip is not None:
        prediction = diffusion.predict(prediction.x_start.clamp(-clip, clip), x, t, "x_start")
    return prediction, log_var


def _steps(diffusion: GaussianDiffusion, label: str, progress: bool) -> "tqdm[int]":
    return tqdm(reversed(range(diffusion.num_steps)), total=diffusion.num_steps, desc=label, disable=not progress)


@torch.no_grad()
def ddpm(
    model: Model,
    x: Tensor,
    diffusion: GaussianDiffusion,
    *,
    generator: torch.Generator | None = None,
    parameterization: Parameterization = "eps",
    clip: float | None = None,
    variance: Literal["large", "small"] = "large",
    callback: Callback | None = None,
    progress: bool = False,
    **condition: Tensor,
) -> Tensor:
    """Ancestral sampling: at each step the posterior mean of the predicted image, and fresh noise.

    Args:
        model: `model(x, t, **condition)`.
        x: standard normal noise, (B, C, …).
        diffusion: the process, respaced or not.
        generator: source of the noise.
        parameterization: what the model predicts.
        clip: bound of the predicted clean image, 1 for pixels in [−1, 1]; none for latents.
        variance: without a variance head, β (`"large"`) or the posterior variance (`"small"`).
        callback: called after each step with index, noisy image and prediction.
        progress: show a bar.
        condition: passed to the model, each (B, …).

    Returns:
        Images, (B, C, …).

    Source: Ho et al. 2020, algorithm 2; Nichol & Dhariwal 2021 for the learned variance.
    """
    log_vars = diffusion.posterior_log_variance
    if variance == "large":  # the first step has no noise of its own; the papers' code takes the posterior's there
        log_vars = torch.cat([log_vars[:1], diffusion.betas[1:].log()])
    for i in _steps(diffusion, "DDPM", progress):
        t = torch.full((len(x),), i, device=x.device)
        prediction, log_var = _ask(model, x, t, diffusion, parameterization, clip, condition)
        if log_var is None:
            log_var = diffusion.at(log_vars, t, x)
        x, _ = diffusion.posterior(prediction.x_start, x, t)
        if i > 0:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + (0.5 * log_var).exp() * noise  # (10.14)
        if callback:
            callback(i, x, prediction)
    return x


@torch.no_grad()
def ddim(
    model: Model,
    x: Tensor,
    diffusion: GaussianDiffusion,
    *,
    generator: torch.Generator | None = None,
    parameterization: Parameterization = "eps",
    clip: float | None = None,
    eta: float = 0.0,
    callback: Callback | None = None,
    progress: bool = False,
    **condition: Tensor,
) -> Tensor:
    """Implicit sampling: with `eta` = 0 the noise `x` decides the image, and few steps are enough.

    Args:
        eta: 0 adds no noise, 1 as much as `ddpm` with the small variance. The others are those of `ddpm`.
            A variance head is ignored.

    Returns:
        Images, (B, C, …).

    Source: Song et al. 2021, equations 12 and 16.
    """
    before, now = diffusion.alpha_bar_prev, diffusion.alpha_bar
    sigmas = eta * ((1 - before) / (1 - now) * (1 - now / before)).sqrt()
    for i in _steps(diffusion, "DDIM", progress):
        t = torch.full((len(x),), i, device=x.device)
        prediction, _ = _ask(model, x, t, diffusion, parameterization, clip, condition)
        direction = diffusion.at((1 - before - sigmas**2).clamp(min=0).sqrt(), t, x)
        x = diffusion.at(before.sqrt(), t, x) * prediction.x_start + direction * prediction.eps
        if eta > 0 and i > 0:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + diffusion.at(sigmas, t, x) * noise
        if callback:
            callback(i, x, prediction)
    return x
