"""The discrete autoencoder of chapter 9, of shapes and emoji together."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ditbook import data, rng, weights
from ditbook.data import emoji, shapes
from ditbook.data.drawing import render
from ditbook.data.scene import Layout
from ditbook.judges.scene_reader import SceneReader
from ditbook.layers import quantize
from ditbook.layers.checks import check_positive, check_range
from ditbook.layers.quantize import VectorQuantizer, one_hot
from ditbook.models.dvae import DVAE
from ditbook.objectives.discrete import quantized_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Tokenize(Task[DVAE]):
    """Encode images as tokens and decode them. Some pairs of color and shape never occur."""

    splits = False  # codes start again at vectors of the whole batch
    layouts: int
    commitment: float
    continuous_steps: int  # during which the vectors are not quantized yet
    restart_every: int  # steps; then codes that nothing in the batch is nearest to start again at vectors of it
    restart_steps: int  # until this step
    noise: float  # width of the uniform noise on images: without it a flat area's likelihood has no bound

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts", "restart_every")
        check_range(self, "commitment", "continuous_steps", "restart_steps", "noise")

    def data(self) -> Batch:
        """Images of layouts of one or two things of seen pairs, and the emoji of the train split."""
        drawn = torch.from_numpy(render(sample_layouts(self.layouts, seed=0)))
        pixels = (127.5 * (data.tensors(emoji.load("train"))["image"] + 1)).round().byte()
        return {"image": torch.cat([drawn, pixels.permute(0, 2, 3, 1)])}

    def loss(self, model: DVAE, batch: Batch, context: Context) -> Tensor:
        """The loss of vector quantization, after a restart of unused codes where one is due."""
        x = data.to_float(batch["image"])
        x = x + self.noise * (rng.rand(x.shape, context.generator, x.device) - 0.5)
        if context.step < self.continuous_steps:
            return model.nats(x, model.vectors(x)).mean()
        if context.step % self.restart_every == 0 and context.step < self.restart_steps:
            self.restart(model, x, context)
        return quantized_loss(model, x, self.commitment)

    def restart(self, model: DVAE, x: Tensor, context: Context) -> None:
        """Put vectors of a batch in the place of codes: of all at the first quantized step, then of those not used."""
        quantizer = cast("VectorQuantizer", model.quantizer)
        with torch.no_grad():
            z = model.vectors(x)
            used = one_hot(quantizer.similarities(z).argmax(dim=1), model.config.vocabulary).sum(dim=(0, 2, 3))  # (K,)
        quantizer.replace((used == 0) | (context.step == self.continuous_steps), z, context.generator)

    def evaluate(self, model: DVAE) -> dict[str, float]:
        """Errors on held-out images, whether the same things are read in them, and how many codes are used."""
        held = [layout for layout in sample_layouts(20_000, seed=1) if shapes.held_out(layout)][:1000]
        scenes = shapes.tensors(held)
        drawings = torch.cat([data.tensors(emoji.load(split))["image"] for split in ("things", "pairs")])
        tokens = [model.tokens(x) for x in (scenes, drawings)]
        decoded = [model.images(rows) for rows in tokens]
        reader: SceneReader = weights.load("scene-reader")
        same = sum(a == b for a, b in zip(reader.read(scenes), reader.read(decoded[0]), strict=True))
        counts = quantize.counts(torch.cat(tokens, dim=0), model.config.vocabulary)
        return {
            "mean absolute error on held-out scenes": round((decoded[0] - scenes).abs().mean().item(), 4),
            "mean absolute error on held-out emoji": round((decoded[1] - drawings).abs().mean().item(), 4),
            "fraction of 1,000 held-out scenes read alike after decoding": same / len(scenes),
            "codes in use": int((counts > 0).sum()),
            "perplexity of the codes": round(quantize.perplexity(counts).item(), 1),
        }


def sample_layouts(count: int, seed: int) -> list[Layout]:
    """Layouts of one or two things, as many of each, of seen pairs."""
    generator = torch.Generator().manual_seed(seed)
    halves = [shapes.sample(count // 2, generator, things=things, pairs=shapes.SEEN_PAIRS) for things in (1, 2)]
    return [layout for both in zip(*halves, strict=True) for layout in both]
