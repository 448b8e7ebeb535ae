"""Diffusion of one thing of the shapes world by color and shape: in latents of an autoencoder, or in pixels."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ditbook import data, pipeline, weights
from ditbook.data import shapes
from ditbook.data.drawing import render
from ditbook.diffusion.losses import denoising_loss, loss_by_time
from ditbook.diffusion.process import Parameterization
from ditbook.judges.scene_reader import SceneReader
from ditbook.layers.checks import check_positive
from ditbook.models.autoencoder import Autoencoder
from ditbook.models.dit import DiT
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Scenes(Task[DiT]):
    """Denoise images of one thing, given the class of its color and shape."""

    layouts: int
    latents_of: str | None = None  # the weights of an autoencoder; without it the model works on pixels
    predicts: Parameterization = "eps"
    schedule: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")

    @cached_property
    def autoencoder(self) -> Autoencoder | None:
        """The autoencoder whose latents are modeled."""
        return None if self.latents_of is None else weights.load(self.latents_of)

    def data(self) -> Batch:
        """Classes, and images or the means and standard deviations of their latents."""
        layouts = shapes.sample(self.layouts, torch.Generator().manual_seed(0), things=1)
        batch = {"label": shapes.labels(layouts)}
        images = torch.from_numpy(render(layouts))
        if self.autoencoder is None:
            return batch | {"image": images}
        with torch.no_grad():
            parts = [self.autoencoder.encode(data.to_float(part)) for part in images.split(200)]
        mean, std = (torch.cat(part) for part in zip(*parts, strict=True))
        return batch | {"mean": mean, "std": std}

    def loss(self, model: DiT, batch: Batch, context: Context) -> Tensor:
        """The denoising loss of images, or of latents that are sampled anew in each step."""
        x, diffusion = self.clean(batch, context.generator), pipeline.process(model, self.predicts, self.schedule)
        dropout = model.config.label_dropout
        return denoising_loss(model, diffusion, x, context.generator, dropout=dropout, y=batch["label"])

    def clean(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The images of a batch, or latents sampled anew."""
        if self.autoencoder is None:
            return data.to_float(batch["image"])
        return self.autoencoder.scaled_latents(batch["mean"], batch["std"], generator)

    def by_time(self, model: DiT, batch: Batch, generator: torch.Generator) -> Tensor:
        """The error in each quarter of the time."""
        x, diffusion = self.clean(batch, generator), pipeline.process(model, self.predicts, self.schedule)
        return loss_by_time(model, diffusion, x, generator, y=batch["label"])

    def generator(self, model: DiT) -> pipeline.Pipeline:
        """From classes to images."""
        diffusion = pipeline.process(model, self.predicts, self.schedule)
        decoder = self.latents_of and weights.load(self.latents_of).to(next(model.parameters()).device)
        return pipeline.Pipeline(model, diffusion, pipeline.SHAPES, decoder or None)

    def evaluate(self, model: DiT) -> dict[str, float]:
        """Fraction of samples of all 64 classes, ten of each, that show their class."""
        labels = torch.arange(64).repeat_interleave(10).tolist()
        images = self.generator(model).sample(labels, guidance_scale=2.0, steps=50, seed=2)
        return {"fraction of 640 images that show their label": round(accuracy_of_samples(images, labels), 4)}


def accuracy_of_samples(images: Tensor, labels: list[int]) -> float:
    """Fraction of images in which the scene reader finds one thing, and it is of the label's class."""
    reader: SceneReader = weights.load("scene-reader")
    right = [
        len(things) == 1 and (things[0][0].colour, things[0][0].shape) == shapes.PAIRS[label]
        for things, label in zip(reader.read(images), labels, strict=True)
    ]
    return sum(right) / len(right)
