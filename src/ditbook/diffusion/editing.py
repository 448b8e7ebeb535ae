"""A trained model as a prior: parts of an image given (inpainting, outpainting), all of it roughly, or a smaller one.

All of it runs in the loop of `samplers`; inpainting is a step there that wraps another one.
Letters: `B` batch, `C` channels, `H W` height and width, `L` side of a smaller image.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.process import Model, Process, check_fits
from ditbook.diffusion.samplers import P, Run, Step, ddim, ddpm, sample


def inpaint(
    x: Tensor,
    i: int,
    run: Run[P],
    *,
    known: Tensor,
    mask: Tensor,
    step: Step = ddpm,
    jump: int = 10,
    repetitions: int = 10,
) -> Tensor:
    """A step that keeps the known part of an image, and at some indices goes up again and down, to bring both together.

    With `repetitions` = 1 it is replacement: the known part is pasted after each step, at that step's noise level.

    Args:
        known: clean images, broadcastable to `x` (B, C, …); what the mask leaves out does not matter.
        mask: True where `known` counts, broadcastable to `x`.
        step: the sampler, without memory of earlier predictions.
        jump: how many indices a repetition goes up.
        repetitions: how often the model passes each index, r of the paper.

    Raises:
        ValueError: `jump` or `repetitions` below 1, a mask that is not boolean, or shapes that do not fit.

    Source: Lugmayr et al. 2022, "RePaint", algorithm 1 and appendix B.
    """
    if jump < 1 or repetitions < 1:
        raise ValueError(f"jump and repetitions must be 1 or more, got {jump} and {repetitions}")
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask must be boolean, True where the image is known, got {mask.dtype}")
    check_fits(known, x, "known images")
    check_fits(mask, x, "mask")

    def down(x: Tensor, k: int) -> Tensor:
        return paste(step(x, k, run), k - 1, run, known, mask)

    x = down(x, i)
    if i % jump == 0 and i + jump < run.diffusion.num_steps:
        for _ in range(repetitions - 1):
            x = renoise(x, i - 1, i + jump - 1, run)
            for k in reversed(range(i, i + jump)):
                x = down(x, k)
    return x


def paste(x: Tensor, i: int, run: Run[P], known: Tensor, mask: Tensor) -> Tensor:
    """Put the known part, with fresh noise of the level of index `i`, into noisy images; at −1 without noise."""
    a, b = run.diffusion.scales(i)
    noisy = known if i < 0 else a * known + b * run.noise(x)
    return torch.where(mask, noisy, x)  # (13.3)


def renoise(x: Tensor, i: int, k: int, run: Run[P]) -> Tensor:
    """From index `i` up to index `k`, by the forward process."""
    (a, b), (a_up, b_up) = run.diffusion.scales(i), run.diffusion.scales(k)
    return a_up / a * x + math.sqrt(max(0.0, b_up**2 - (a_up * b / a) ** 2)) * run.noise(x)  # (13.4)


def calls(steps: int, jump: int, repetitions: int) -> int:
    """How often the model is called in one run of `inpaint` over `steps` indices, by a step that calls it once."""
    return steps + (repetitions - 1) * jump * math.ceil(max(0, steps - jump) / jump)  # (13.5)


def outpaint(
    model: Model,
    x: Tensor,
    diffusion: Process,
    conditions: Sequence[Mapping[str, Tensor]],
    *,
    window: int,
    overlap: int,
    step: Step = ddpm,
    jump: int = 10,
    repetitions: int = 10,
    clip: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Continue images to the right, window after window; each one's left part is what stands there already.

    Args:
        model: `model(x, t, **condition)` for images of width `window`.
        x: clean images, (B, C, …, W), at least `overlap` wide.
        diffusion: the process. For fewer steps pass `diffusion.respace(count)`.
        conditions: of each new window, their values (B, …); empty mappings for a model without any.
        window: width of what the model sees.
        overlap: columns of a window that are known, less than `window`.
        step, jump, repetitions: as for `inpaint`.
        clip: bound of the predicted clean image, or None.
        generator: source of noise.

    Returns:
        (B, C, …, W + len(conditions)·(window − overlap)).

    Raises:
        ValueError: no overlap, one as wide as the window, or one wider than the images.
    """
    if not 0 < overlap < window or x.shape[-1] < overlap:
        raise ValueError(f"overlap {overlap} must be positive, below the window {window}, within width {x.shape[-1]}")
    mask = (torch.arange(window) < overlap).to(x.device)  # (window,)
    for condition in conditions:
        known = torch.nn.functional.pad(x[..., -overlap:], (0, window - overlap))
        filled = partial(inpaint, known=known, mask=mask, step=step, jump=jump, repetitions=repetitions)
        noise = rng.randn(known.shape, generator, x)
        found = sample(
            model, noise, diffusion, step=filled, clip=clip, generator=generator, progress=False, **condition
        )
        x = torch.cat([x, found[..., overlap:]], dim=-1)  # (13.6)
    return x


def edit(
    model: Model,
    x: Tensor,
    diffusion: Process,
    *,
    sigma: float,
    step: Step = ddim,
    clip: float | None = None,
    generator: torch.Generator,
    **condition: Tensor,
) -> Tensor:
    """Add noise of one level to images and sample from there: the more noise, the less of them is left.

    Args:
        model: `model(x, t, **condition)`.
        x: clean images, (B, C, …), rough ones or real ones.
        diffusion: the process, whose levels below `sigma` are visited.
        sigma: the noise level σ = b/a to start from.
        step: the sampler.
        clip: bound of the predicted clean image, or None.
        generator: source of noise.
        condition: passed to the model, each (B, …).

    Raises:
        ValueError: `sigma` is not above the lowest level of the process.

    Source: Meng et al. 2022, "SDEdit", algorithm 1.
    """
    below = diffusion.sigmas[diffusion.sigmas < sigma]
    if not len(below):
        raise ValueError(f"sigma {sigma} must be above the lowest noise level, {diffusion.sigmas[0].item():.4g}")
    levels = diffusion.at_sigmas(torch.cat([below, below.new_tensor([sigma])]))
    top = torch.full((len(x),), levels.num_steps - 1, device=x.device)
    noisy = levels.add_noise(x, top, rng.randn(x.shape, generator, x))  # (13.7)
    return sample(model, noisy, levels, step=step, clip=clip, generator=generator, progress=False, **condition)


def augmented(low: Tensor, level: Tensor, diffusion: GaussianDiffusion, generator: torch.Generator) -> Tensor:
    """Small images (B, C, L, L) with the noise of `level` (B,), training timesteps: what an upsampler is shown.

    Source: Ho et al. 2022, "Cascaded Diffusion Models", section 4.2.
    """
    return diffusion.training.add_noise(low, level, rng.randn(low.shape, generator, low))  # (13.10)


def upsample(
    model: Model,
    low: Tensor,
    diffusion: GaussianDiffusion,
    *,
    size: int,
    level: int = 0,
    step: Step = ddim,
    clip: float | None = 1.0,
    generator: torch.Generator,
) -> Tensor:
    """Larger images for small ones, by a model that is called `model(x, t, low=…, level=…)`, such as `Upsampler`.

    Args:
        model: its condition `low` is the small image after `augmented`, and `level` the timestep of that noise.
        low: (B, C, L, L) in [−1, 1].
        diffusion: the process. For fewer steps pass `diffusion.respace(count)`.
        size: side of the larger images.
        level: of the noise on the small images; as in training for true ones, more where they come from a model.
        step: the sampler.
        clip: bound of the predicted clean image, or None.
        generator: source of noise, first that of the small images.

    Returns:
        (B, C, size, size).

    Source: Ho et al. 2022, algorithm 2; Saharia et al. 2022, "SR3".
    """
    levels = torch.full((len(low),), level, device=low.device)
    shown = augmented(low, levels, diffusion, generator)
    x = rng.randn((*low.shape[:2], size, size), generator, low)
    return sample(model, x, diffusion, step=step, clip=clip, generator=generator, low=shown, level=levels)
