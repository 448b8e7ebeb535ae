"""The autoencoder of the shapes world."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook import data, weights
from ditbook.data import shapes
from ditbook.data.drawing import render
from ditbook.judges.scene_reader import SceneReader
from ditbook.layers.checks import check_positive, check_range
from ditbook.models.autoencoder import Autoencoder, latent_scale
from ditbook.objectives.autoencoding import autoencoder_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task
from ditbook.training.tasks.scene_reader import sample_layouts


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Task[Autoencoder]):
    """Encode images as small latents and decode them."""

    layouts: int
    kl_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")
        check_range(self, "kl_weight")

    def data(self) -> Batch:
        """Images of one to three things."""
        return {"image": torch.from_numpy(render(sample_layouts(self.layouts, seed=0)))}

    def loss(self, model: Autoencoder, batch: Batch, context: Context) -> Tensor:
        """Absolute error and a little divergence."""
        return autoencoder_loss(model, data.to_float(batch["image"]), context.generator, self.kl_weight)

    @torch.no_grad()
    def evaluate(self, model: Autoencoder) -> dict[str, float]:
        """Error on held-out images, whether the same things are read in them, and the scale of the latents."""
        x = data.tensors(shapes.load("validation", 1000, seed=1))["image"]
        parts = [model.encode(part) for part in x.split(100)]
        decoded = torch.cat([model.decode(mean) for mean, _ in parts])
        mean, std = (torch.cat(part) for part in zip(*parts, strict=True))
        reader: SceneReader = weights.load("scene-reader")
        same = sum(a == b for a, b in zip(reader.read(x), reader.read(decoded.clamp(-1, 1)), strict=True))
        return {
            "mean absolute error on held-out images": round((decoded - x).abs().mean().item(), 4),
            "fraction of held-out images read alike after decoding": same / len(x),
            "scale": round(latent_scale(mean, std), 4),
        }
