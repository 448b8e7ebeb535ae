"""From a batch to a denoising loss: the simple loss, and the hybrid loss that also learns the variance.

Letters: `B` batch, `C` channels.
"""

from typing import Literal

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.bound import bound_terms
from ditbook.diffusion.gaussian import GaussianDiffusion, Model, Prediction
from ditbook.diffusion.guidance import drop_condition, null_condition

Reduction = Literal["mean", "none"]


def denoising_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
    **condition: Tensor,
) -> Tensor:
    """The loss of a training step: timesteps and noise are random, and so is which samples lose their condition.

    Args:
        model: `model(x, t, **condition)`; with `dropout` it also has `null_condition(**condition)`.
        diffusion: the process; it says what the model predicts, and with `learn_sigma` the loss is the hybrid one.
        x_start: clean images or latents, (B, C, …).
        generator: gives timesteps, noise and dropout, in this order.
        dropout: fraction of the samples that are trained without a condition, for classifier-free guidance.
        condition: passed to the model, each (B, …).

    Returns:
        A scalar.

    Source: Ho et al. 2020, algorithm 1; Ho & Salimans 2022, algorithm 1.
    """
    t = rng.randint(diffusion.num_steps, (len(x_start),), generator, x_start.device)
    eps = rng.randn(x_start.shape, generator, x_start)
    if dropout:
        condition = drop_condition(condition, null_condition(model, condition), dropout, generator)
    loss = hybrid_loss if diffusion.learn_sigma else simple_loss
    return loss(model, diffusion, x_start, t, eps, reduction="mean", **condition)


def simple_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    t: Tensor,
    eps: Tensor,
    *,
    reduction: Reduction = "mean",
    **condition: Tensor,
) -> Tensor:
    """Mean squared error of what the model predicts.

    Args:
        model: `model(x, t, **condition)`.
        diffusion: the process; `diffusion.predicts` is what the error is taken of.
        x_start: clean images, (B, C, …).
        t: indices, (B,).
        eps: standard normal noise of the shape of `x_start`.
        reduction: `"mean"` over the batch too, or `"none"` for one value for each sample, (B,).
        condition: passed to the model, each (B, …).

    Source: Ho et al. 2020, equation 14.
    """
    prediction, _ = _predict(model, diffusion, x_start, t, eps, condition)
    return _reduced(_error(diffusion, prediction, x_start, eps, t), reduction)  # (10.12)


def hybrid_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    t: Tensor,
    eps: Tensor,
    *,
    reduction: Reduction = "mean",
    **condition: Tensor,
) -> Tensor:
    """The simple loss plus the bound, in bits, whose gradient reaches only the variance head.

    Args:
        diffusion: a process with `learn_sigma`. The others are those of `simple_loss`.

    Raises:
        ValueError: the process has no variance head.

    Source: Nichol & Dhariwal 2021, equation 16, with the weight 1 that DiT's code gives the mean over dimensions.
    """
    prediction, x_t = _predict(model, diffusion, x_start, t, eps, condition)
    if prediction.log_variance is None:
        raise ValueError("the hybrid loss needs a variance head: make the process with learn_sigma=True")
    simple = _error(diffusion, prediction, x_start, eps, t)  # (B,)
    bound = bound_terms(diffusion, prediction.x_start.detach(), prediction.log_variance, x_start, x_t, t)  # (B,)
    return _reduced(simple + bound, reduction)  # (16.12)


def _predict(
    model: Model, diffusion: GaussianDiffusion, x_start: Tensor, t: Tensor, eps: Tensor, condition: dict[str, Tensor]
) -> tuple[Prediction, Tensor]:
    x_t = diffusion.add_noise(x_start, t, eps)
    return diffusion.predict(model(x_t, diffusion.training_timesteps(t), **condition), x_t, t), x_t


def _error(diffusion: GaussianDiffusion, prediction: Prediction, x_start: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Squared error of each sample, (B,)."""
    wanted = getattr(diffusion.targets(x_start, eps, t), diffusion.predicts)
    return (getattr(prediction, diffusion.predicts) - wanted).square().flatten(1).mean(1)


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction {reduction!r} is unknown; take 'mean' or 'none'")
    return values.mean() if reduction == "mean" else values
