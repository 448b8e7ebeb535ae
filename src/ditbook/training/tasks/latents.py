"""Diffusion of latents that were encoded before, by class: a reader's own images, or those of ImageNet."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ditbook import pipeline, rng, weights
from ditbook.diffusion.losses import denoising_loss, loss_by_time
from ditbook.diffusion.process import Parameterization
from ditbook.layers.checks import check_range
from ditbook.models.autoencoder import AutoencoderConfig, sample_latent
from ditbook.models.dit import MODELS, DiT, DiTConfig
from ditbook.training.latents import AUTOENCODER, read
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

FOLDER = "latents"  # of the paper's recipes
HELD_OUT, AT_ONCE = 500, 50  # rows that are measured, at most, and rows at once


@dataclass(frozen=True, kw_only=True)
class Latents(Task[DiT]):
    """Denoise latents of images and of mirrored images, given their classes."""

    anywhere = True

    folder: str  # what `ditbook encode` made
    latents_of: str  # the autoencoder in it
    held_out: str | None = None  # latents of other images, to measure; by default those that are trained on
    predicts: Parameterization | None = None
    schedule: str = "linear"
    scale: float | None = None  # of the autoencoder, so that a run can be planned before there is one

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "scale", above=True)

    @cached_property
    def factor(self) -> float:
        """The scale."""
        return weights.metadata(self.latents_of)["model"]["scale"] if self.scale is None else self.scale

    def data(self) -> Batch:
        """The columns of the folder, read while they are used; without labels all images are of class 0.

        Raises:
            ValueError: no latents, or the autoencoder has another scale.
        """
        columns = _columns(self.folder)
        if self.factor != (stored := weights.metadata(self.latents_of)["model"]["scale"]):
            raise ValueError(f"the recipe says scale {self.factor}, but {self.latents_of} decodes with {stored}")
        return columns

    def example(self, model: DiT) -> Batch:
        """Two rows of the model's own size: to count them, no folder is needed."""
        config = model.config
        z = torch.empty(2, config.channels, config.size, config.size)
        names = ("mean", "std", "mirrored mean", "mirrored std")
        return dict.fromkeys(names, z) | {"label": torch.zeros(2, dtype=torch.int64)}

    def loss(self, model: DiT, batch: Batch, context: Context) -> Tensor:
        """The denoising loss of latents that are mirrored and sampled anew in each step."""
        x, diffusion = self.clean(batch, context.generator), pipeline.process(model, self.predicts, self.schedule)
        dropout = model.config.label_dropout
        return denoising_loss(model, diffusion, x, context.generator, dropout=dropout, y=batch["label"])

    def clean(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Latents of a batch, each mirrored or not, sampled anew and scaled."""
        mirrored = rng.rand((len(batch["mean"]), 1, 1, 1), generator, batch["mean"].device) < 0.5
        mean, std = (torch.where(mirrored, batch[f"mirrored {name}"], batch[name]) for name in ("mean", "std"))
        return self.factor * sample_latent(mean, std, generator)

    def by_time(self, model: DiT, batch: Batch, generator: torch.Generator) -> Tensor:
        """The error in each quarter of the time."""
        x, diffusion = self.clean(batch, generator), pipeline.process(model, self.predicts, self.schedule)
        return loss_by_time(model, diffusion, x, generator, y=batch["label"])

    def generator(self, model: DiT) -> pipeline.Pipeline:
        """From the numbers of classes to images."""
        diffusion = pipeline.process(model, self.predicts, self.schedule)
        decoder = weights.load(self.latents_of).to(next(model.parameters()).device)
        return pipeline.Pipeline(model, diffusion, tuple(map(str, range(model.config.num_classes))), decoder)

    @torch.no_grad()
    def evaluate(self, model: DiT) -> dict[str, float]:
        """The loss of some rows, held out or not, with noise that is the same for every model."""
        columns = _columns(self.held_out or self.folder)
        count = len(columns["mean"])
        rows = torch.linspace(0, count - 1, min(HELD_OUT, count)).long()  # a folder is ordered by class
        device, context, total = next(model.parameters()).device, Context(0, torch.Generator().manual_seed(1)), 0.0
        for part in rows.split(AT_ONCE):
            batch = {name: rng.moved(column[part], device) for name, column in columns.items()}
            total += len(part) * self.loss(model, batch, context).item()
        return {f"{'held-out ' if self.held_out else ''}loss": round(total / len(rows), 4)}


def _columns(folder: str) -> Batch:
    columns: dict[str, Any] = dict(read(folder))
    return {"label": torch.zeros(len(columns["mean"]), dtype=torch.int64)} | columns


def paper(name: str) -> dict[str, Any]:
    """The recipe of one of the paper's twelve models, "DiT-XL/2", on latents of ImageNet in the folder `FOLDER`.

    Source: Peebles & Xie 2023, section 4; label dropout as in the official code.
    """
    assert name in MODELS
    return {
        "description": f"{name} on ImageNet latents of 256×256 images, as in the paper",
        "family": "dit",
        "task": "latents",
        "data": "ImageNet, train split, encoded by the autoencoder of Stable Diffusion",
        "dtype": "float32",
        "folder": FOLDER,
        "latents_of": f"{FOLDER}/{AUTOENCODER}",
        "schedule": "linear",
        "scale": AutoencoderConfig().scale,
        "model": asdict(DiTConfig.from_name(name)),
        "training": {
            "steps": 400_000,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "warmup_steps": 0,
            "ema_decay": 0.9999,
            "seed": 0,
        },
    }
