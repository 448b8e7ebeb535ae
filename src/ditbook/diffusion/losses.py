"""From a batch to a denoising loss: the simple loss, the hybrid loss that also learns the variance, and the bound.

Letters: `B` batch, `C` channels.
"""

from typing import Literal

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.bound import bound_terms
from ditbook.diffusion.flow import Flow, flow_loss, logit_normal
from ditbook.diffusion.gaussian import GaussianDiffusion, Variance
from ditbook.diffusion.guidance import drop_condition, null_condition
from ditbook.diffusion.process import Model, Prediction, Process
from ditbook.diffusion.weighting import Weighting, of_error

Reduction = Literal["mean", "none"]


def denoising_loss(
    model: Model,
    diffusion: Process,
    x_start: Tensor,
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
    weighting: Weighting | None = None,
    **condition: Tensor,
) -> Tensor:
    """The loss of a training step: timesteps and noise are random, and so is which samples lose their condition.

    Args:
        model: `model(x, t, **condition)`; with `dropout` it also has `null_condition(**condition)`.
        diffusion: the process; it says what the model predicts. With `learn_sigma` the loss is the hybrid one, and on
            straight paths it is `flow_loss`.
        x_start: clean images or latents, (B, C, …).
        generator: gives timesteps, noise and dropout, in this order.
        dropout: fraction of the samples that are trained without a condition, for classifier-free guidance.
        weighting: of the squared error; see `simple_loss`.
        condition: passed to the model, each (B, …).

    Returns:
        A scalar.

    Raises:
        ValueError: a weighting for straight paths, whose weights are the distribution of their times.

    Source: Ho et al. 2020, algorithm 1; Ho & Salimans 2022, algorithm 1.
    """
    if isinstance(diffusion, Flow):
        if weighting is not None:
            raise ValueError("straight paths take no weighting: choose the times of flow_loss")
        return flow_loss(model, diffusion, x_start, generator, times=logit_normal, dropout=dropout, **condition)
    assert isinstance(diffusion, GaussianDiffusion)
    t = rng.randint(diffusion.num_steps, (len(x_start),), generator, x_start.device)
    eps = rng.randn(x_start.shape, generator, x_start)
    if dropout:
        condition = drop_condition(condition, null_condition(model, condition), dropout, generator)
    loss = hybrid_loss if diffusion.learn_sigma else simple_loss
    return loss(model, diffusion, x_start, t, eps, reduction="mean", weighting=weighting, **condition)


@torch.no_grad()
def loss_by_time(
    model: Model,
    diffusion: Process,
    x_start: Tensor,
    generator: torch.Generator,
    *,
    parts: int = 4,
    **condition: Tensor,
) -> Tensor:
    """Mean squared error of what the model predicts, apart for each part of the time: where a training still learns.

    Args:
        model: `model(x, t, **condition)`.
        diffusion: the process.
        x_start: clean images or latents, (B, C, …); the rows are dealt out to the parts, B at least their number.
        generator: of timesteps and noise.
        parts: of equal length, from little noise to much.
        condition: passed to the model, each (B, …).

    Returns:
        (parts,).
    """
    part = torch.arange(len(x_start), device=x_start.device) % parts  # (B,)
    t = ((part + rng.rand(part.shape, generator, part.device)) / parts * diffusion.num_steps).long()
    eps = rng.randn(x_start.shape, generator, x_start)
    x_t = diffusion.add_noise(x_start, t, eps)
    found = diffusion.predict(model(x_t, diffusion.training_timesteps(t), **condition), x_t, t)
    wanted = diffusion.targets(x_start, eps, t)
    error = (getattr(found, diffusion.predicts) - getattr(wanted, diffusion.predicts)).square().flatten(1).mean(1)
    return torch.stack([error[k::parts].mean() for k in range(parts)])


def simple_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    t: Tensor,
    eps: Tensor,
    *,
    reduction: Reduction = "mean",
    weighting: Weighting | None = None,
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
        weighting: weight of the squared error of x₀ as a function of the signal-to-noise ratio, one of
            `ditbook.diffusion.weighting`; by default each timestep counts the same for what the model predicts.
        condition: passed to the model, each (B, …).

    Source: Ho et al. 2020, equation 14.
    """
    prediction, _ = _predict(model, diffusion, x_start, t, eps, condition)
    return _reduced(_error(diffusion, prediction, x_start, eps, t, weighting), reduction)  # (10.12), (11.17)


def hybrid_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    t: Tensor,
    eps: Tensor,
    *,
    reduction: Reduction = "mean",
    weighting: Weighting | None = None,
    **condition: Tensor,
) -> Tensor:
    """The simple loss plus the bound, in bits, whose gradient reaches the variance head and the trunk, not the mean.

    Args:
        diffusion: a process with `learn_sigma`. The others are those of `simple_loss`.

    Raises:
        ValueError: the process has no variance head.

    Source: Nichol & Dhariwal 2021, equation 16, with the weight 1 that DiT's code gives the mean over dimensions.
    """
    prediction, x_t = _predict(model, diffusion, x_start, t, eps, condition)
    if prediction.log_variance is None:
        raise ValueError("the hybrid loss needs a variance head: make the process with learn_sigma=True")
    simple = _error(diffusion, prediction, x_start, eps, t, weighting)  # (B,)
    bound = bound_terms(diffusion, prediction.x_start.detach(), prediction.log_variance, x_start, x_t, t)  # (B,)
    return _reduced(simple + bound, reduction)  # (16.12)


def bound_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    t: Tensor,
    eps: Tensor,
    *,
    variance: Variance | None = None,
    reduction: Reduction = "mean",
    **condition: Tensor,
) -> Tensor:
    """The term of the variational bound at the timesteps `t`, times their number, in bits per dimension.

    Over uniform timesteps its mean estimates the bound, without the prior's term.

    Args:
        diffusion: any process.
        variance: of the reverse step: β, the posterior variance, or that of the variance head; by default the head's
            if there is one, and β otherwise. The other arguments are those of `simple_loss`.

    Raises:
        ValueError: an unknown variance, or "learned" without a variance head.

    Source: Nichol & Dhariwal 2021, section 3.3.
    """
    prediction, x_t = _predict(model, diffusion, x_start, t, eps, condition)
    log_var = diffusion.reverse_log_variance(prediction, x_t, t, variance).expand_as(x_t)
    terms = bound_terms(diffusion, prediction.x_start, log_var, x_start, x_t, t)  # (B,)
    return _reduced(diffusion.num_steps * terms, reduction)


def _predict(
    model: Model, diffusion: GaussianDiffusion, x_start: Tensor, t: Tensor, eps: Tensor, condition: dict[str, Tensor]
) -> tuple[Prediction, Tensor]:
    x_t = diffusion.add_noise(x_start, t, eps)
    return diffusion.predict(model(x_t, diffusion.training_timesteps(t), **condition), x_t, t), x_t


def _error(
    diffusion: GaussianDiffusion,
    prediction: Prediction,
    x_start: Tensor,
    eps: Tensor,
    t: Tensor,
    weighting: Weighting | None,
) -> Tensor:
    """Squared error of each sample, weighted, (B,)."""
    wanted = getattr(diffusion.targets(x_start, eps, t), diffusion.predicts)
    error = (getattr(prediction, diffusion.predicts) - wanted).square().flatten(1).mean(1)
    if weighting is None:
        return error
    snr = diffusion.coefficient("sigmas", t, error) ** -2
    return of_error(weighting, snr, diffusion.predicts) * error


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction {reduction!r} is unknown; take 'mean' or 'none'")
    return values.mean() if reduction == "mean" else values
