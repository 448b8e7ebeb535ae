"""Scenes of the shapes world from 32×32 to 64×64 pixels: the last stage of unCLIP."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ditbook import data
from ditbook.data.drawing import render
from ditbook.diffusion import editing
from ditbook.layers.checks import check_positive
from ditbook.models.unet import Upsampler
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks.faces import UpsampleFaces, reduced
from ditbook.training.tasks.unclip import sample_layouts


@dataclass(frozen=True, kw_only=True)
class UpsampleScenes(UpsampleFaces):
    """Enlarge scenes of one or two things, shown with noise of a random level."""

    layouts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")

    def data(self) -> Batch:
        """Large images as bytes, (N, 64, 64, 3)."""
        return {"image": torch.from_numpy(render(sample_layouts(self.layouts), 64))}

    def loss(self, model: Upsampler, batch: Batch, context: Context) -> Tensor:
        """The simple loss, given the small image with noise on it."""
        return super().loss(model, {"image": data.to_float(batch["image"])}, context)

    @torch.no_grad()
    def evaluate(self, model: Upsampler) -> dict[str, float]:
        """Error of one sample for each of 100 held-out small images, and that of plain enlarging."""
        layouts = sample_layouts(4000, seed=1, held_out=True)[:100]
        high = data.to_float(render(layouts, 64))
        low = reduced(high, model.config.low)
        found = editing.upsample(
            model, low, self.process(model).respace(25), size=64, generator=torch.Generator().manual_seed(2)
        )
        plain = F.interpolate(low, size=(64, 64), mode="bilinear")
        errors = {"samples": found, "bilinear enlarging": plain}
        return {f"mse of {name}": round((x - high).square().mean().item(), 5) for name, x in errors.items()}
