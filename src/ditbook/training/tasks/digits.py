"""Diffusion of the 8×8 digits, by class or without classes."""

from dataclasses import dataclass

import torch
from sklearn.svm import SVC
from torch import Tensor

from ditbook import data, pipeline, rng
from ditbook.data import digits
from ditbook.diffusion.losses import denoising_loss
from ditbook.models.dit import DiT
from ditbook.models.unet import UNet
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Digits(Task[DiT | UNet]):
    """Predict the noise of digits. A model that has a null condition is given their classes."""

    schedule: str = "linear"

    def data(self) -> Batch:
        """The digits of the train split."""
        return data.tensors(digits.load("train"))

    def loss(self, model: DiT | UNet, batch: Batch, context: Context) -> Tensor:
        """The simple loss, or the hybrid loss of a model with a variance head."""
        diffusion = pipeline.process(model, schedule=self.schedule)
        if isinstance(model, UNet):
            return denoising_loss(model, diffusion, batch["image"], context.generator)
        dropout = model.config.label_dropout
        return denoising_loss(model, diffusion, batch["image"], context.generator, dropout=dropout, y=batch["label"])

    def evaluate(self, model: DiT | UNet) -> dict[str, float]:
        """Error of the predicted noise; with classes also how many samples show theirs."""
        metric = {"held-out mse of eps": round(self.held_out_error(model), 4)}
        if pipeline.conditional(model):
            metric["agreement at guidance 2"] = round(self.agreement(model, guidance_scale=2.0), 3)
        return metric

    @torch.no_grad()
    def held_out_error(self, model: DiT | UNet) -> float:
        """Mean squared error of ε on the validation digits, with 20 timesteps and noises each."""
        batch = data.tensors(digits.load("validation"))
        x, y = batch["image"].repeat(20, 1, 1, 1), batch["label"].repeat(20)
        diffusion = pipeline.process(model, schedule=self.schedule)
        generator = torch.Generator().manual_seed(1)
        t = rng.randint(diffusion.num_steps, (len(x),), generator, x.device)
        eps = rng.randn(x.shape, generator, like=x)
        x_t = diffusion.add_noise(x, t, eps)
        output = model(x_t, t, **({"y": y} if pipeline.conditional(model) else {}))
        return (diffusion.predict(output, x_t, t).eps - eps).square().mean().item()

    def agreement(self, model: DiT | UNet, guidance_scale: float) -> float:
        """Fraction of 500 samples (DDIM, 50 steps) that a support vector machine reads as the digit of their label."""
        real = data.tensors(digits.load("train"))
        reader = SVC(gamma=0.05, C=10).fit(real["image"].flatten(1).numpy(), real["label"].numpy())
        labels = torch.arange(10).repeat(50).tolist()
        generator = pipeline.Pipeline(model, pipeline.process(model, schedule=self.schedule), pipeline.DIGITS)
        images = generator.sample(labels, guidance_scale=guidance_scale, steps=50, seed=2)
        return float((reader.predict(images.flatten(1).numpy()) == labels).mean())
