"""Rectified flow: straight paths from images to noise, the velocity along them, and steps that follow it.

The direction of time: t = 0 is the image and t = 1 is noise, x = (1 − t) x₀ + t ε, with the velocity v = ε − x₀. (Some
papers count the other way.) A model is called with the timestep 1000 t.
Letters: `B` batch, `T` times.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.guidance import drop_condition, null_condition
from ditbook.diffusion.process import Model, Parameterization, Prediction, Process, check_each, check_same_shape, known
from ditbook.diffusion.samplers import P, Run

TIMESTEPS = 1000  # timestep of t = 1, so that networks are given the range that they get from a process of 1,000 steps
Times = Callable[[int, torch.Generator, torch.device], Tensor]  # count, generator, device → times (count,)


class Flow(Process):
    """Straight paths seen at a list of times, and what a network that learns them predicts.

    Args:
        times: increasing in (0, 1], (T,), before they are shifted.
        shift: α of `shifted`, for these times and for those of training.
        predicts: what the network's output means: the velocity, ε or x₀.

    Raises:
        ValueError: no time, or times that do not increase in (0, 1], a shift that is not positive, or an unknown
            parameterization.

    Source: Liu et al. 2023, equation 1; Lipman et al. 2023, section 4.1; Esser et al. 2024 for this direction of time.
    """

    def __init__(self, times: Tensor, *, shift: float = 1.0, predicts: Parameterization = "v") -> None:
        super().__init__()
        if times.ndim != 1 or not len(times) or not (times.diff() > 0).all() or not 0 < times[0] <= times[-1] <= 1:
            raise ValueError(f"times must increase in (0, 1], got {times.tolist()}")
        if shift <= 0:
            raise ValueError(f"shift must be positive, got {shift}")
        self.shift, self.predicts, self.num_steps = shift, known(predicts), len(times)
        self.times = shifted(times.double(), shift)
        self.clock, self.sigmas, self.timesteps = self.times, self.times / (1 - self.times), TIMESTEPS * self.times

    def scales(self, i: int) -> tuple[float, float]:
        """1 − t and t at index `i`; 1 and 0 at −1."""
        return (1.0, 0.0) if i < 0 else (1 - self.times[i].item(), self.times[i].item())

    def add_noise(self, x_start: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Noisy images (1 − t) x₀ + t ε.

        Args:
            x_start: clean images, (B, …).
            t: indices, (B,).
            eps: standard normal noise of the shape of `x_start`.

        Raises:
            ValueError: the shapes do not fit, or an index is out of range.

        Source: Liu et al. 2023, equation 1.
        """
        check_same_shape(eps, x_start, "noise", "images")
        time = self.coefficient("times", t, x_start)
        return (1 - time) * x_start + time * eps

    def targets(self, x_start: Tensor, eps: Tensor, t: Tensor) -> Prediction:
        """What a perfect network would predict for the clean images `x_start` under the noise `eps`, at any `t` (B,).

        Raises:
            ValueError: the shapes do not fit.
        """
        check_same_shape(eps, x_start, "noise", "images")
        check_each(t, x_start, "timesteps")
        return Prediction(x_start, eps, eps - x_start)

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, predicts: Parameterization) -> Prediction:
        """Turn one of ε, x₀ and the velocity into all three.

        Args:
            value: a prediction of the shape of `x_t`.
            x_t: the noisy image, (B, …).
            t: indices, (B,).
            predicts: what `value` is: `"eps"`, `"x_start"` or `"v"`. From ε at t = 1 nothing follows.

        Raises:
            ValueError: another parameterization, or shapes that differ.

        Source: Esser et al. 2024, section 2, for v = ε − x₀.
        """
        check_same_shape(value, x_t)
        time = self.coefficient("times", t, x_t)
        if known(predicts) == "v":
            x_start, eps = x_t - time * value, x_t + (1 - time) * value
        elif predicts == "x_start":
            x_start, eps = value, (x_t - (1 - time) * value) / time
        else:
            x_start, eps = (x_t - time * value) / (1 - time), value
        return Prediction(x_start, eps, value if predicts == "v" else eps - x_start)  # (12.15)

    def training_timesteps(self, t: Tensor) -> Tensor:
        """What the model takes at the indices `t` (B,): 1000 times the time, float32.

        Raises:
            ValueError: as for `coefficient`.
        """
        self._check_timesteps(t)
        return self.table("timesteps", torch.float32, t.device)[t]

    def respace(self, count: int) -> "Flow":
        """The same paths at `count` times that are evenly spread before the shift, from 1/count to 1.

        Raises:
            ValueError: `count` is not positive.
        """
        return Flow(uniform_times(count), shift=self.shift, predicts=self.predicts)

    def at_sigmas(self, sigmas: Tensor) -> "Flow":
        """The same paths at the noise levels σ = t / (1 − t), which increase, (T,)."""
        times = 1 - 1 / (1 + sigmas.double())  # (12.16)
        return Flow(shifted(times, 1 / self.shift).clamp(max=1), shift=self.shift, predicts=self.predicts)


def shifted(times: Tensor, shift: float) -> Tensor:
    """Times moved towards the noise for `shift` > 1: α t / (1 + (α − 1) t), which divides a/b by α at each time.

    With α the ratio of the sides of two images, the larger one at the shifted time is as noisy, once it is averaged
    down to the size of the smaller one, as that is at t.

    Source: Esser et al. 2024, section 5.3.
    """
    return shift * times / (1 + (shift - 1) * times)


def uniform_times(count: int) -> Tensor:
    """1/count, 2/count, …, 1 in float64.

    Raises:
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be positive, got {count}")
    return torch.arange(1, count + 1, dtype=torch.float64) / count


def uniform(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Random times, uniform in [0, 1), (count,)."""
    return rng.rand((count,), generator, device)


def logit_normal(
    count: int, generator: torch.Generator, device: torch.device, *, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Random times whose logits are normal, (count,): more of them in the middle than at the ends.

    Source: Esser et al. 2024, section 3.1.
    """
    return (mean + std * rng.randn((count,), generator, torch.empty(0, device=device))).sigmoid()


def flow_loss(
    model: Model,
    flow: Flow,
    x_start: Tensor,
    generator: torch.Generator,
    *,
    times: Times = logit_normal,
    dropout: float = 0.0,
    **condition: Tensor,
) -> Tensor:
    """The loss of a training step: times and noise are random, and so is which samples lose their condition.

    Args:
        model: `model(x, t, **condition)`; with `dropout` it also has `null_condition(**condition)`.
        flow: says what the model predicts, and shifts the times; its own list of times is not used.
        x_start: clean images or latents, (B, …).
        generator: gives times, noise and dropout, in this order.
        times: `uniform`, `logit_normal` or another distribution.
        dropout: fraction of the samples that are trained without a condition, for classifier-free guidance.
        condition: passed to the model, each (B, …).

    Returns:
        The mean squared error of what the model predicts, a scalar.

    Raises:
        ValueError: not one time for each image, or a prediction of another shape.

    Source: Liu et al. 2023, equation 1; Esser et al. 2024, sections 2 and 3.
    """
    t = shifted(times(len(x_start), generator, x_start.device), flow.shift)
    check_each(t, x_start, "times")
    eps = rng.randn(x_start.shape, generator, x_start)
    if dropout:
        condition = drop_condition(condition, null_condition(model, condition), dropout, generator)
    time = t.to(x_start.dtype).view(-1, *[1] * (x_start.ndim - 1))  # (B, 1, …, 1)
    output = model((1 - time) * x_start + time * eps, TIMESTEPS * t, **condition)
    target = getattr(Prediction(x_start, eps, eps - x_start), flow.predicts)
    check_same_shape(output, x_start)
    return (output - target).square().mean()  # (19.11)


def euler(x: Tensor, i: int, run: Run[P]) -> Tensor:
    """Euler's step along v. On a flow it is `ddim` without noise; on a Gaussian process, whose paths turn, it is not.

    Source: Liu et al. 2023, algorithm 1; Esser et al. 2024, section 2.
    """
    return x + _move(run, i) * run.denoise(x, i).v  # (12.5)


def heun(x: Tensor, i: int, run: Run[P]) -> Tensor:
    """Heun's step along v, of second order: two calls of the model, in the last step one.

    Source: Ma et al. 2024, "SiT", whose sampler it is.
    """
    first = run.denoise(x, i).v
    if i == 0:
        return x + _move(run, i) * first
    return x + _move(run, i) * (first + run.denoise(x + _move(run, i) * first, i - 1).v) / 2


def _move(run: Run[P], i: int) -> float:
    """The time from index `i` to index i − 1; negative."""
    before = run.diffusion.clock[i - 1].item() if i > 0 else 0.0
    return before - run.diffusion.clock[i].item()
