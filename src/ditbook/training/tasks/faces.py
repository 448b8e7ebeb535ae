"""Diffusion of the faces and hearts among the emoji: at one size, or from a smaller size to a larger one."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ditbook import data, pipeline, rng
from ditbook.data import emoji
from ditbook.diffusion import editing
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.losses import denoising_loss
from ditbook.diffusion.process import Parameterization
from ditbook.layers.checks import check_positive
from ditbook.metrics.fid import Features, Statistics, frechet, statistics
from ditbook.models.unet import UNet, Upsampler
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

GROUP = "Smileys & Emotion"  # of Unicode's groups of emoji
SIDE = 32  # of the emoji
COMPONENTS = 32  # principal components of the images that the Fréchet distance is taken in
SMOOTH = 8  # the detail of an image is its difference to itself at this side
COUNT = 500  # samples that are measured


@cache
def load(split: str) -> Tensor:
    """The images of the group in a split of the emoji, or in "held out", its two others together: (N, 3, 32, 32)."""
    names = ("things", "pairs") if split == "held out" else (split,)
    return torch.cat([_load(name) for name in names])


def _load(split: str) -> Tensor:
    dataset = emoji.load(split)
    number = dataset.features["group"].str2int(GROUP)
    rows = [row for row, group in enumerate(dataset["group"]) if group == number]
    return data.tensors(dataset.select(rows))["image"]


def whole(images: Tensor) -> Tensor:
    """The images themselves, beside `detail`."""
    return images


def reduced(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H, H) averaged down to (B, C, side, side)."""
    return F.interpolate(images, size=(side, side), mode="area")


def detail(images: Tensor) -> Tensor:
    """What images lose when they are reduced to 8×8 and enlarged again, (B, C, H, W)."""
    return images - F.interpolate(reduced(images, SMOOTH), size=images.shape[2:], mode="bilinear")


@cache
def features(name: str, side: int) -> tuple[Features, Statistics]:
    """Principal components of the training faces or of their details, as features, and statistics in them."""
    change, train = {"images": whole, "details": detail}[name], reduced(load("train"), side)
    flat = change(train).flatten(1)
    mean = flat.mean(0)
    components = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:COMPONENTS].T

    def project(images: Tensor) -> Tensor:
        return (change(images).flatten(1) - mean) @ components

    return project, statistics(project, train)


@dataclass(frozen=True, kw_only=True)
class Faces(Task[UNet]):
    """Denoise faces, reduced to the size of the model."""

    predicts: Parameterization = "x_start"
    schedule: str = "cosine"

    def data(self) -> Batch:
        """The faces of the train split, of full size."""
        return {"image": load("train")}

    def process(self, model: UNet) -> GaussianDiffusion:
        """What the model is trained on."""
        process = pipeline.process(model, self.predicts, self.schedule)
        assert isinstance(process, GaussianDiffusion)
        return process

    def loss(self, model: UNet, batch: Batch, context: Context) -> Tensor:
        """The simple loss."""
        x = reduced(batch["image"], model.config.size)
        return denoising_loss(model, self.process(model), x, context.generator)

    @torch.no_grad()
    def evaluate(self, model: UNet) -> dict[str, float]:
        """Error on held-out faces, and distances of samples to the training faces."""
        x = reduced(load("held out"), model.config.size).repeat(20, 1, 1, 1)
        error = denoising_loss(model, self.process(model), x, torch.Generator().manual_seed(1)).item()
        metric = {f"held-out mse of {self.predicts}": round(error, 4)}
        if model.config.size == SIDE:
            images = pipeline.Pipeline(model, self.process(model)).sample(count=COUNT, steps=50, seed=2)
            metric |= {name: round(value, 3) for name, value in self.distances(images).items()}
        return metric

    def distances(self, images: Tensor) -> dict[str, float]:
        """How near images (N, 3, H, H) come to the training faces as a set, in principal components, and one by one.

        The last number is the mean distance to the nearest training face, over that of held-out faces; copies have 0.
        """
        side, found = images.shape[-1], {}
        for name in ("images", "details"):
            project, wanted = features(name, side)
            found[f"Fréchet distance of {name}"] = frechet(wanted, statistics(project, images))
        train, held_out = (reduced(load(split), side).flatten(1) for split in ("train", "held out"))
        nearest = [torch.cdist(x, train).min(dim=1).values.mean() for x in (images.flatten(1), held_out)]
        return found | {"distance to the nearest training face, 1 for held-out faces": (nearest[0] / nearest[1]).item()}


@dataclass(frozen=True, kw_only=True)
class UpsampleFaces(Task[Upsampler]):
    """Enlarge faces, shown with noise of a random level, or of the lowest one alone."""

    levels: int  # the noise on the small image has a random timestep below this one
    predicts: Parameterization = "x_start"
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "levels")

    def data(self) -> Batch:
        """The faces of the train split, of full size."""
        return {"image": load("train")}

    def process(self, model: Upsampler) -> GaussianDiffusion:
        """What the model is trained on, and whose noise the small images get."""
        process = pipeline.process(model, self.predicts, self.schedule)
        assert isinstance(process, GaussianDiffusion)
        return process

    def loss(self, model: Upsampler, batch: Batch, context: Context) -> Tensor:
        """The simple loss, given the small image with noise on it."""
        diffusion, generator = self.process(model), context.generator
        x, low = (reduced(batch["image"], side) for side in (model.config.size, model.config.low))
        level = rng.randint(self.levels, (len(x),), generator, x.device)
        shown = editing.augmented(low, level, diffusion, generator)
        return denoising_loss(model, diffusion, x, generator, low=shown, level=level)

    @torch.no_grad()
    def evaluate(self, model: Upsampler) -> dict[str, float]:
        """Of held-out faces: error of the prediction, and of one sample for each true small image."""
        generator, process = torch.Generator().manual_seed(1), self.process(model)
        x = load("held out")
        high, low = (reduced(x, side) for side in (model.config.size, model.config.low))
        error = self.loss(model, {"image": x.repeat(20, 1, 1, 1)}, Context(0, generator)).item()
        found = editing.upsample(model, low, process.respace(25), size=model.config.size, generator=generator)
        back = reduced(found, model.config.low)
        return {
            f"held-out mse of {self.predicts}": round(error, 4),
            "mse of samples": round((found - high).square().mean().item(), 4),
            "mse of samples, reduced again": round((back - low).square().mean().item(), 4),
        }
