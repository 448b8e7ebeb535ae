"""What a diffusion model is trained on: the simple loss, and the hybrid loss that also learns the variance.

Letters: `B` batch, `C` channels, `T` timesteps.
"""

from collections.abc import Callable

from torch import Tensor

from ditbook.diffusion.bound import bound_terms
from ditbook.diffusion.gaussian import GaussianDiffusion, Parameterization, split_variance

Model = Callable[..., Tensor]


def simple_loss(
    model: Model,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    t: Tensor,
    eps: Tensor,
    parameterization: Parameterization = "eps",
    **condition: Tensor,
) -> Tensor:
    """Mean squared error of the prediction, over the batch and all pixels.

    Args:
        model: `model(x, t, **condition)` → an output of the shape of `x`.
        x_start: clean images, (B, C, …).
        t: indices, (B,).
        eps: standard normal noise of the shape of `x_start`.
        parameterization: what the model is asked to predict.

    Source: Ho et al. 2020, equation 14.
    """
    x_t = diffusion.add_noise(x_start, t, eps)
    output = model(x_t, diffusion.model_time(t), **condition)
    if output.shape != x_t.shape:
        raise ValueError(
            f"the model answered {tuple(output.shape)} to {tuple(x_t.shape)}; a variance head needs hybrid_loss"
        )
    target = getattr(diffusion.predict(eps, x_t, t, "eps"), parameterization)
    return (output - target).square().mean()  # (10.12)


def hybrid_loss(
    model: Model, diffusion: GaussianDiffusion, x_start: Tensor, t: Tensor, eps: Tensor, **condition: Tensor
) -> Tensor:
    """The simple loss plus the bound, in bits, whose gradient reaches only the variance head.

    Args:
        model: `model(x, t, **condition)` → (B, 2·C, …): noise, then variance logits.
        x_start: clean images, (B, C, …).
        t: indices, (B,).
        eps: standard normal noise of the shape of `x_start`.

    Source: Nichol & Dhariwal 2021, equation 16, with the weight 1 that DiT's code gives the mean over dimensions.
    """
    x_t = diffusion.add_noise(x_start, t, eps)
    output = model(x_t, diffusion.model_time(t), **condition)
    predicted, log_var = split_variance(diffusion, output, x_t, t)
    bound = bound_terms(diffusion, predicted.detach(), log_var, x_start, x_t, t)
    return (predicted - eps).square().mean() + bound.mean()  # (16.12)
