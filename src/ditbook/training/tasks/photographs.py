"""Diffusion of squares cut from two photographs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook import data, pipeline, rng
from ditbook.data import photographs
from ditbook.diffusion.losses import denoising_loss
from ditbook.diffusion.process import Parameterization, Process
from ditbook.layers.checks import check_positive
from ditbook.models.unet import UNet
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


def crops(split: str, count: int, side: int, seed: int) -> Tensor:
    """Squares cut from random places of both photographs, half of them from each: bytes (count, side, side, 3)."""
    generator, found = torch.Generator().manual_seed(seed), []
    for image in photographs.load(split).with_format("torch")["image"]:  # (3, H, W)
        number = count // len(photographs.NAMES)
        top, left = (rng.randint(n - side + 1, (number,), generator, image.device) for n in image.shape[1:])
        places = zip(top.tolist(), left.tolist(), strict=True)
        found += [image[:, y : y + side, x : x + side].permute(1, 2, 0) for y, x in places]
    return torch.stack(found)


@dataclass(frozen=True, kw_only=True)
class Photographs(Task[UNet]):
    """Denoise squares of the left parts of the photographs."""

    squares: int
    predicts: Parameterization = "x_start"
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "squares")

    def data(self) -> Batch:
        """Squares of 32×32 pixels."""
        return {"image": crops("train", self.squares, 32, seed=0)}

    def process(self, model: UNet) -> Process:
        """What the model is trained on."""
        return pipeline.process(model, self.predicts, self.schedule)

    def loss(self, model: UNet, batch: Batch, context: Context) -> Tensor:
        """The simple loss."""
        return denoising_loss(model, self.process(model), data.to_float(batch["image"]), context.generator)

    @torch.no_grad()
    def evaluate(self, model: UNet) -> dict[str, float]:
        """Error on squares of the right parts."""
        x = data.to_float(crops("validation", 1000, model.config.size, seed=1))
        error = denoising_loss(model, self.process(model), x, torch.Generator().manual_seed(1)).item()
        return {f"held-out mse of {self.predicts}": round(error, 4)}
