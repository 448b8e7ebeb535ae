"""The scene reader: which things an image of the shapes world shows, and where."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook import data, rng
from ditbook.data import shapes
from ditbook.data.drawing import render
from ditbook.data.scene import Layout
from ditbook.judges import scene_reader
from ditbook.judges.scene_reader import SceneReader
from ditbook.layers.checks import check_positive, check_range
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class ReadScenes(Task[SceneReader]):
    """Read noisy images, so that generated images may be a little off."""

    layouts: int
    noise: float  # largest standard deviation

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")
        check_range(self, "noise")

    def data(self) -> Batch:
        """Images of layouts that are not held out, and what each cell of them shows."""
        layouts = [layout for layout in sample_layouts(self.layouts, seed=0) if not shapes.held_out(layout)]
        return {"image": torch.from_numpy(render(layouts)), "target": scene_reader.targets(layouts)}

    def loss(self, model: SceneReader, batch: Batch, context: Context) -> Tensor:
        """Cross-entropy of all cells, under noise whose standard deviation is uniform."""
        x = data.to_float(batch["image"])
        sigma = self.noise * rng.rand((len(x), 1, 1, 1), context.generator, x.device)
        noisy = x + sigma * rng.randn(x.shape, context.generator, like=x)
        return scene_reader.loss(model(noisy), batch["target"])

    def evaluate(self, model: SceneReader) -> dict[str, float]:
        """Fraction of held-out scenes of which all is read."""
        layouts = [layout for layout in sample_layouts(50_000, seed=1) if shapes.held_out(layout)]
        images = shapes.tensors(layouts)
        read = [row for part in images.split(500) for row in model.read(part)]
        right = sum(
            sorted(row, key=str) == sorted(zip(layout.scene.things, layout.places, strict=True), key=str)
            for row, layout in zip(read, layouts, strict=True)
        )
        return {f"fraction of {len(layouts):,} held-out scenes read without a fault": round(right / len(layouts), 4)}


def sample_layouts(count: int, seed: int) -> list[Layout]:
    """Layouts of one to three things, all pairs of color and shape among them."""
    return shapes.sample(count, torch.Generator().manual_seed(seed))
