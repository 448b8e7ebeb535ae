"""From the name of trained weights to images.

>>> from ditbook import pipeline, plotting
>>> shapes = pipeline.load("dit-shapes-latent")
>>> images = shapes.sample(labels=["red circle", "blue star"], guidance_scale=3.0)
>>> plotting.grid(images)

Letters: `N` images, `C H W` channels, height, width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ditbook import rng, weights
from ditbook.data import shapes
from ditbook.diffusion import flow, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import ClassifierFreeGuidance, null_condition
from ditbook.diffusion.process import Parameterization, Process, known
from ditbook.models.autoencoder import Autoencoder
from ditbook.models.dit import DiT
from ditbook.models.unet import UNet, Upsampler

DIGITS = tuple("0123456789")
SHAPES = tuple(" ".join(pair) for pair in shapes.PAIRS)
# names of the classes, by the task that a recipe names; those of a reader's own latents are numbers
LABELS: dict[str, tuple[str, ...]] = {
    "digits": DIGITS,
    "faces": (),
    "latents": (),
    "photographs": (),
    "scenes": SHAPES,
}
SCHEDULES = {"linear": schedules.linear, "scaled_linear": schedules.scaled_linear, "cosine": schedules.cosine}
STRAIGHT = "straight"  # in place of a schedule: the straight paths of a flow

Label = str | int | None


@dataclass(frozen=True)
class Pipeline:
    """A generator of images.

    Args:
        model: in evaluation mode.
        diffusion: the process that it was trained on, with what it predicts.
        labels: names of its classes, in their order; none for a model without classes.
        autoencoder: decodes what the model generates, if that is a latent.
    """

    model: DiT | UNet
    diffusion: Process
    labels: tuple[str, ...] = ()
    autoencoder: Autoencoder | None = None

    def sample(
        self,
        labels: Sequence[Label] | None = None,
        *,
        count: int | None = None,
        guidance_scale: float = 1.0,
        steps: int = 50,
        seed: int = 0,
        progress: bool = False,
    ) -> Tensor:
        """Generate images by DDIM, which on straight paths is Euler's step.

        Args:
            labels: for each image the name or number of its class, or None for no class.
            count: number of images, for a model without classes.
            guidance_scale: of classifier-free guidance; 1 is none.
            steps: calls of the model, each for all images.
            seed: of the noise; the same seed gives the same images.
            progress: show a bar.

        Returns:
            (N, C, H, W) in [−1, 1].

        Raises:
            ValueError: no image, an unknown label, labels or guidance for a model without classes, or a value out of
                range.
        """
        if not 0 <= guidance_scale < math.inf:
            raise ValueError(f"guidance_scale must be 0 or more, and finite, got {guidance_scale}")
        if not _whole(steps) or not 2 <= steps <= self.diffusion.num_steps:
            raise ValueError(f"steps must be a whole number, 2 to {self.diffusion.num_steps}, got {steps!r}")
        n, condition = self._condition(labels, count, guidance_scale)
        config, parameter = self.model.config, next(self.model.parameters())
        shape = (n, config.channels, config.size, config.size)
        noise = rng.randn(shape, torch.Generator().manual_seed(seed), like=parameter)
        condition = {name: rng.moved(tensor, parameter.device) for name, tensor in condition.items()}
        guided = self.model if guidance_scale == 1 else ClassifierFreeGuidance(self.model, guidance_scale)
        clip = 1.0 if self.autoencoder is None else None
        process = self.diffusion.respace(steps)
        x = samplers.sample(guided, noise, process, clip=clip, progress=progress, **condition)
        if self.autoencoder is not None:
            with torch.no_grad():
                x = self.autoencoder.from_latents(x)
        return x.clamp(-1, 1)

    def _condition(
        self, labels: Sequence[Label] | None, count: int | None, guidance_scale: float
    ) -> tuple[int, dict[str, Any]]:
        """Number of images, and what the model is conditioned on."""
        if not self.labels:
            if labels is not None or guidance_scale != 1:
                raise ValueError("this model has no classes: pass count, and neither labels nor guidance_scale")
            if not _whole(count) or count < 1:
                raise ValueError(f"this model has no classes: count must be a positive number of images, got {count!r}")
            return int(count), {}
        if isinstance(labels, str) or not labels or count is not None:
            raise ValueError(f"labels must be a list with one label for each image: {_listed(self.labels)}, or None")
        numbers = [self._number(label) for label in labels]
        y = torch.tensor([0 if number is None else number for number in numbers])
        without = torch.tensor([number is None for number in numbers])
        return len(y), {"y": torch.where(without, null_condition(self.model, {"y": y})["y"], y)}

    def _number(self, label: Label) -> int | None:
        if label is None:
            return None
        if isinstance(label, str) and label in self.labels:
            return self.labels.index(label)
        if _whole(label) and 0 <= label < len(self.labels):
            return int(label)
        raise ValueError(f"no label {label!r}; there are {_listed(self.labels)}")


def load(name: str, device: str | torch.device = "cpu") -> Pipeline:
    """The pipeline of trained weights, made by their metadata.

    Args:
        name: one of `names()`, or the path of a weight file.
        device: where the images are made.

    Raises:
        ValueError: no such weights, not a generator of images, or metadata that do not fit it; the message names them.
    """
    about = weights.metadata(name)
    task, latents_of = about.get("task"), about.get("latents_of")
    schedule: Any = about.get("schedule")  # if it is missing or no text, `process` says so
    if task not in [*LABELS]:  # a list, because what stands in a file may not be hashable
        raise ValueError(f"{name} does not generate images; those that do are {', '.join(names())}")
    model = weights.load(name).to(device)
    if not isinstance(model, DiT | UNet) or isinstance(model, Upsampler):
        raise ValueError(f"{name} is a {type(model).__name__}, of the task {task!r}; that takes a DiT or a UNet")
    if not (latents_of is None or isinstance(latents_of, str)):
        raise ValueError(f"{name} has latents_of {latents_of!r} in its metadata; it must be the name of weights")
    try:
        diffusion = process(model, about.get("predicts"), schedule)
        autoencoder = None if latents_of is None else weights.load(latents_of).to(device)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{name} has metadata that do not fit: {error}") from error
    if not (autoencoder is None or isinstance(autoencoder, Autoencoder)):
        raise ValueError(f"{name} has latents of {latents_of}, which is a {type(autoencoder).__name__}")
    if autoencoder is not None and autoencoder.config.latent_channels != model.config.channels:
        raise ValueError(f"{name} makes {model.config.channels} channels, and {latents_of} decodes another number")
    classes = model.config.num_classes if isinstance(model, DiT) else 0
    labels = tuple(map(str, range(classes))) if task == "latents" else LABELS[task] if classes else ()
    if len(labels) > classes or (classes and not labels):
        raise ValueError(f"{name} has {classes} classes, and the task {task!r} has {len(labels)}")
    return Pipeline(model, diffusion, labels, autoencoder)


def names() -> list[str]:
    """The shipped weights that generate images."""
    return [name for name in weights.names() if weights.metadata(name)["task"] in LABELS]


def conditional(model: DiT | UNet) -> bool:
    """Whether a model takes a condition, and has a null condition."""
    return hasattr(model, "null_condition")


def process(model: nn.Module, predicts: Parameterization | None = None, schedule: str = "linear") -> Process:
    """The process of 1,000 steps that a model is trained on.

    Args:
        model: whose config may say that it has a variance head, `learn_sigma`.
        predicts: by default ε, or the velocity on straight paths.
        schedule: one of `SCHEDULES`, or `STRAIGHT`.

    Raises:
        ValueError: no such schedule or parameterization, or straight paths for a model with a variance head.
    """
    if schedule not in (named := [*SCHEDULES, STRAIGHT]):
        raise ValueError(f"no schedule {schedule!r}; there are {', '.join(named)}")
    if predicts is not None:
        known(predicts)
    return _process(predicts, schedule, getattr(model.config, "learn_sigma", False))


@cache
def _process(predicts: Parameterization | None, schedule: str, learn_sigma: bool) -> Process:
    if schedule == STRAIGHT:
        if learn_sigma:
            raise ValueError("straight paths have no variance: build the model with learn_sigma=False")
        return flow.Flow(flow.uniform_times(1000), predicts=predicts or "v")
    return GaussianDiffusion(SCHEDULES[schedule](), predicts=predicts or "eps", learn_sigma=learn_sigma)


def _whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, also one of NumPy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _listed(labels: tuple[str, ...]) -> str:
    return f"{', '.join(labels)} (or their numbers, 0 to {len(labels) - 1})"
