"""Diffusion of handwritten digits, by class or without classes: of 8×8 pixels, or of 28×28."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from sklearn.svm import SVC
from torch import Tensor

from ditbook import data, pipeline, rng
from ditbook.data import digits, mnist
from ditbook.diffusion.losses import denoising_loss, loss_by_time
from ditbook.diffusion.process import Parameterization, Process
from ditbook.metrics.fid import frechet, statistics
from ditbook.models.dit import DiT
from ditbook.models.unet import UNet
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

DATASETS = {"digits": digits, "mnist": mnist}
WIDTHS = {"digits": 0.05, "mnist": 0.005}  # γ of the support vector machine that reads samples
SPLITS = ("train", "validation")
LABELS = torch.arange(10).repeat(50).tolist()  # of the samples that are measured
COMPONENTS = 32  # principal components of the images that the Fréchet distance is taken in


@dataclass(frozen=True, kw_only=True)
class Digits(Task[DiT | UNet]):
    """Denoise digits. A model that has a null condition is given their classes."""

    predicts: Parameterization | None = None  # by default ε, or the velocity on straight paths
    schedule: str = "linear"  # or "straight", for the straight paths of a flow
    dataset: str = "digits"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset not in DATASETS:
            raise ValueError(f"no dataset {self.dataset!r}; there are {' and '.join(DATASETS)}")

    def data(self) -> Batch:
        """The digits of the train split."""
        return self.split("train")

    def split(self, name: str) -> Batch:
        """The digits of a split: `image` and `label`."""
        return data.tensors(DATASETS[self.dataset].load(name))

    def process(self, model: DiT | UNet) -> Process:
        """What the model is trained on."""
        return pipeline.process(model, self.predicts, self.schedule)

    def loss(self, model: DiT | UNet, batch: Batch, context: Context) -> Tensor:
        """The simple loss, the hybrid loss of a model with a variance head, or that of a flow."""
        diffusion = self.process(model)
        if isinstance(model, UNet):
            return denoising_loss(model, diffusion, batch["image"], context.generator)
        dropout = model.config.label_dropout
        return denoising_loss(model, diffusion, batch["image"], context.generator, dropout=dropout, y=batch["label"])

    def by_time(self, model: DiT | UNet, batch: Batch, generator: torch.Generator) -> Tensor:
        """The error in each quarter of the time."""
        condition: dict[str, Any] = {"y": batch["label"]} if pipeline.conditional(model) else {}
        return loss_by_time(model, self.process(model), batch["image"], generator, **condition)

    def generator(self, model: DiT | UNet) -> pipeline.Pipeline:
        """From noise, and classes if the model has them, to digits."""
        labels = pipeline.DIGITS if pipeline.conditional(model) else ()
        return pipeline.Pipeline(model, self.process(model), labels)

    def evaluate(self, model: DiT | UNet) -> dict[str, float]:
        """Error of the prediction; with classes how many samples show theirs; of 28×28 pixels how near samples are."""
        metric = {f"held-out mse of {self.process(model).predicts}": round(self.held_out_error(model), 4)}
        if pipeline.conditional(model):
            metric["agreement at guidance 2"] = round(self.agreement(model, guidance_scale=2.0), 3)
            if self.dataset == "mnist":
                found = self.distances(self.samples(model, guidance_scale=1.0))
                metric |= {name: round(value, 3) for name, value in found.items()}
        return metric

    @torch.no_grad()
    def held_out_error(self, model: DiT | UNet) -> float:
        """Mean squared error of what the model predicts on the validation digits, with several noises for each."""
        batch, repeats = self.split("validation"), 20 if self.dataset == "digits" else 3
        x, y = batch["image"].repeat(repeats, 1, 1, 1), batch["label"].repeat(repeats)
        diffusion = self.process(model)
        generator = torch.Generator().manual_seed(1)
        t = rng.randint(diffusion.num_steps, (len(x),), generator, x.device)
        eps = rng.randn(x.shape, generator, like=x)
        x_t = diffusion.add_noise(x, t, eps)
        output = model(x_t, diffusion.training_timesteps(t), **({"y": y} if pipeline.conditional(model) else {}))
        found, wanted = diffusion.predict(output, x_t, t), diffusion.targets(x, eps, t)
        return (getattr(found, diffusion.predicts) - getattr(wanted, diffusion.predicts)).square().mean().item()

    def samples(self, model: DiT | UNet, guidance_scale: float) -> Tensor:
        """Fifty samples of each digit in 50 steps, 0, 1, …, 9, 0, 1, …: (500, 1, H, W)."""
        return self.generator(model).sample(LABELS, guidance_scale=guidance_scale, steps=50, seed=2)

    def agreement(self, model: DiT | UNet, guidance_scale: float) -> float:
        """Fraction of 500 samples that a support vector machine reads as the digit of their label."""
        return self.read(self.samples(model, guidance_scale), LABELS)

    def read(self, images: Tensor, labels: list[int]) -> float:
        """Fraction of images that a support vector machine reads as the digit of their label."""
        return float((self.reader.predict(images.flatten(1).numpy()) == labels).mean())

    @cached_property
    def reader(self) -> SVC:
        """A support vector machine that has learned the digits of the train split."""
        real = self.split("train")
        machine = SVC(gamma=WIDTHS[self.dataset], C=10)
        return machine.fit(real["image"].flatten(1).numpy(), real["label"].numpy())

    def distances(self, images: Tensor) -> dict[str, float]:
        """How near images come to the training images one by one, and to the held-out ones as a set.

        The first number is the mean distance to the nearest training image, divided by that of held-out images: copies
        would make it 0. The second is the Fréchet distance of 32 principal components of the training images.
        """
        train, held_out, found = (x.flatten(1) for x in (*(self.split(s)["image"] for s in SPLITS), images))
        nearest, usual = (torch.cdist(x, train).min(dim=1).values.mean() for x in (found, held_out))
        sets = [statistics(lambda x: (x - train.mean(0)) @ self.components, x) for x in (held_out, found)]
        return {
            "distance to the nearest training image, 1 for held-out images": (nearest / usual).item(),
            f"Fréchet distance in {COMPONENTS} principal components": frechet(*sets),
        }

    @cached_property
    def components(self) -> Tensor:
        """The first principal components of the training images, as columns."""
        train = self.split("train")["image"].flatten(1)
        return torch.linalg.svd(train - train.mean(0), full_matrices=False).Vh[:COMPONENTS].T
