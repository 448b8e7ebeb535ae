"""What samplers, losses and likelihoods need of a process: tables by index, and what a network's output means.

A process mixes the clean image with noise, x = a x₀ + b ε. Index 0 is the lowest of its noise levels, and index −1
stands for the clean image. Letters: `B` batch, `C` channels, `T` noise levels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from ditbook import rng

Parameterization = Literal["eps", "x_start", "v"]
Model = Callable[..., Tensor]  # model(x, t, **condition), t in training timesteps


@dataclass(frozen=True)
class Prediction:
    """One prediction as x₀, ε and v, each of the image's shape, and the log variance of a variance head."""

    x_start: Tensor
    eps: Tensor
    v: Tensor
    log_variance: Tensor | None = None


class Process(ABC):
    """A list of noise levels, and what a network that is called at them predicts. Tables have the shape (T,)."""

    predicts: Parameterization
    learn_sigma: bool = False
    num_steps: int  # T
    timesteps: Tensor  # what the model is called with at each index
    sigmas: Tensor  # b / a, the noise level, increasing; the last may be infinite
    clock: Tensor  # a time at which x, on its path from x₀ to ε, moves with the velocity v; 0 at the clean image

    def __init__(self) -> None:
        self._cast: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    @abstractmethod
    def scales(self, i: int) -> tuple[float, float]:
        """The coefficients a and b at index `i`; 1 and 0 at −1."""

    @abstractmethod
    def add_noise(self, x_start: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """a x₀ + b ε at the indices `t` (B,), for images and noise (B, …)."""

    @abstractmethod
    def targets(self, x_start: Tensor, eps: Tensor, t: Tensor) -> Prediction:
        """What a perfect network would predict for `x_start` (B, …) under the noise `eps` at the indices `t` (B,)."""

    @abstractmethod
    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, predicts: Parameterization) -> Prediction:
        """Turn one of ε, x₀ and v, predicted for `x_t` (B, …) at the indices `t` (B,), into all three."""

    @abstractmethod
    def respace(self, count: int) -> Self:
        """The same process seen at `count` levels only, from its first to its last."""

    @abstractmethod
    def at_sigmas(self, sigmas: Tensor) -> Self:
        """The same process seen at the noise levels `sigmas` only, which increase, (T,)."""

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """Read a network's output as this process defines it.

        Args:
            output: of the shape of `x_t`.
            x_t: the noisy image that the network was given, (B, C, …).
            t: indices, (B,).

        Raises:
            ValueError: the shapes differ.
        """
        return self.convert(output, x_t, t, self.predicts)

    def coefficient(self, name: str, t: Tensor, x: Tensor) -> Tensor:
        """Entries `t` (B,) of the table `name`, shaped to multiply `x`: (B, 1, …, 1), of its type and device.

        Raises:
            ValueError: `t` has another shape or type, or an index outside 0 … T − 1, or `x` holds whole numbers. The
                range is checked for indices on the CPU; elsewhere the check would make the accelerator wait.
        """
        rng.check_floating(x)
        check_each(t, x, "timesteps")
        self._check_timesteps(t)
        return self.table(name, x.dtype, x.device)[t].view(-1, *[1] * (x.ndim - 1))

    def _check_timesteps(self, t: Tensor) -> None:
        if t.dtype not in (torch.int64, torch.int32) or t.ndim != 1:  # those of bool and uint8 would be taken as masks
            raise ValueError(f"timesteps of shape {tuple(t.shape)} and type {t.dtype}; expected int64 or int32, (B,)")
        if t.device.type == "cpu" and t.numel() and not 0 <= int(t.min()) <= int(t.max()) < self.num_steps:
            raise ValueError(f"timestep out of range: {t.tolist()} must lie in 0 to {self.num_steps - 1}")

    def table(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The table `name`, cast first (not every device has float64) and moved once."""
        key = name, dtype, device
        if key not in self._cast:
            self._cast[key] = getattr(self, name).to(dtype).to(device)
        return self._cast[key]

    def training_timesteps(self, t: Tensor) -> Tensor:
        """The timesteps of the training process that the indices `t` (B,) stand for, which the model takes.

        Raises:
            ValueError: as for `coefficient`.
        """
        self._check_timesteps(t)
        return self.table("timesteps", self.timesteps.dtype, t.device)[t]


def check_each(values: Tensor, x: Tensor, what: str) -> None:
    """Raise ValueError unless there is one value for each sample of `x` (B, …): (B,)."""
    if values.shape != x.shape[:1]:
        raise ValueError(f"{what} of shape {tuple(values.shape)} for {len(x)} samples; expected ({len(x)},)")


def known(predicts: Parameterization) -> Parameterization:
    """The parameterization itself.

    Raises:
        ValueError: there is no such parameterization.
    """
    if predicts not in ("eps", "x_start", "v"):
        raise ValueError(f"parameterization {predicts!r} is unknown; take 'eps', 'x_start' or 'v'")
    return predicts


def check_same_shape(value: Tensor, other: Tensor, what: str = "prediction", of: str = "noisy image") -> None:
    """Refuse what is not of the shape of another tensor: neither is broadcast."""
    if value.shape != other.shape:
        raise ValueError(f"{what} {tuple(value.shape)} and {of} {tuple(other.shape)} differ in shape")


def check_fits(value: Tensor, x: Tensor, what: str) -> None:
    """Refuse what cannot be broadcast to the shape of `x` (B, …)."""
    sizes = zip(reversed(value.shape), reversed(x.shape), strict=False)
    if value.ndim > x.ndim or any(size not in (1, wanted) for size, wanted in sizes):
        raise ValueError(f"{what} of shape {tuple(value.shape)} cannot be broadcast to {tuple(x.shape)}")
