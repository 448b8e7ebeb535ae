"""The exact density of what a model generates, by the probability-flow equation, with a random estimate of a trace.

Letters: `B` batch, `D` dimensions of an image.
Source: Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations", section 4.3;
Grathwohl et al. 2019, "FFJORD", for the estimate.
"""

import math

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.process import Model, Process

BIN = 2 / 255  # width of an 8-bit pixel value in [−1, 1]


def log_likelihood(
    model: Model, process: Process, x_start: Tensor, generator: torch.Generator, **condition: Tensor
) -> Tensor:
    """Log density, in nats, (B,), of images under the flow that takes standard normal noise to the lowest noise level.

    Heun's method follows v from index 0 to the last, where x is standard normal, and adds up its divergence, estimated
    along one random direction of signs for each image. More levels make it exact; more directions make it less random.

    Args:
        model: `model(x, t, **condition)`.
        process: its levels are the steps; the lowest one is part of what is measured, so it should be far below the
            noise of the images.
        x_start: images with continuous values, (B, …); `dequantize` gives them.
        generator: gives the signs.
        condition: passed to the model, each (B, …).

    Source: Song et al. 2021, appendix D.2.
    """
    signs = 2 * rng.randint(2, tuple(x_start.shape), generator, x_start.device).to(x_start.dtype) - 1
    a, dims = process.scales(0)[0], x_start[0].numel()
    x = a * x_start
    total = torch.full((len(x),), dims * math.log(a), dtype=x.dtype, device=x.device)
    for i in range(process.num_steps - 1):
        move = (process.clock[i + 1] - process.clock[i]).item()
        first, gained = _velocity(model, process, x, i, signs, condition)
        second, gained_there = _velocity(model, process, x + move * first, i + 1, signs, condition)
        x = x + move / 2 * (first + second)
        total = total + move / 2 * (gained + gained_there)  # (11.15)
    return total - 0.5 * (x.square().flatten(1).sum(1) + dims * math.log(2 * math.pi))


def _velocity(
    model: Model, process: Process, x: Tensor, i: int, signs: Tensor, condition: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """v at index `i`, and the estimate of its divergence, (B,)."""
    t = torch.full((len(x),), i, device=x.device)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = process.predict(model(x, process.training_timesteps(t), **condition), x, t).v
        (product,) = torch.autograd.grad(v, x, signs)  # signsᵀ J
    return v.detach(), (product * signs).flatten(1).sum(1)


def dequantize(x: Tensor, generator: torch.Generator) -> Tensor:
    """8-bit images in [−1, 1] with noise uniform over the width of a pixel value, so that they have a density.

    Raises:
        ValueError: images of whole numbers.
    """
    rng.check_floating(x)
    return x + BIN * (rng.rand(tuple(x.shape), generator, x.device).to(x.dtype) - 0.5)


def bits_per_dimension(log_density: Tensor, dims: int) -> Tensor:
    """Bits for each dimension of an 8-bit image in [−1, 1], an upper bound if the density is that of `dequantize`.

    Args:
        log_density: in nats.
        dims: dimensions of an image.

    Source: Theis et al. 2016, section 3.1.
    """
    return -log_density / (dims * math.log(2)) - math.log2(BIN)  # (11.2)
