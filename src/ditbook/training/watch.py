"""What a training does, written for TensorBoard: losses, gradients, speed, and samples."""

import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditbook import weights
from ditbook.pipeline import Pipeline
from ditbook.training import distributed, evaluation
from ditbook.training.budget import CARDS, budget
from ditbook.training.distributed import Layout, World
from ditbook.training.engine import Engine
from ditbook.training.loop import Batch
from ditbook.training.recipes import Recipe

GRID_EVERY = 5000  # steps between two grids of samples, and two comparisons with real images
GRID, COMPARED, AT_ONCE = 16, 1000, 50  # samples
QUARTERS = ("0 to 1⁄4", "1⁄4 to 1⁄2", "1⁄2 to 3⁄4", "3⁄4 to 1")


class Watch:
    """Writes scalars, and now and then what the average generates; a `Watcher` of `engine.train`.

    Args:
        folder: of TensorBoard's files.
        recipe: what is trained.
        world: the processes; the first one writes.
        real: images to compare samples with, as for `user_images.load`; by default none.
        features: those of the comparison, see `evaluation.extractor`.

    Raises:
        ValueError: the package tensorboard is missing, or there are no such features.
    """

    def __init__(
        self,
        folder: str | Path,
        recipe: Recipe,
        world: World,
        real: str | None = None,
        features: str = evaluation.READER,
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("to watch a training, run `pip install tensorboard`") from error
        self.recipe, self.world, self.real = recipe, world, real
        self.network = evaluation.extractor(features, world.device) if real else None
        self.writer: Any = SummaryWriter(str(folder)) if world.first else None
        self.flops = budget(recipe, Layout()).flops
        with torch.device("meta"):
            model: Any = weights.build(recipe.table["family"], recipe.table["model"])
        self.tokens: int | None = getattr(model.config, "tokens", None)  # of an image, where there are such
        self.last: tuple[int, float] | None = None  # step and time of the call before

    def __call__(self, engine: Engine, batch: Batch, read: list[tuple[float, float]]) -> None:
        """Write what happened since the last call. All processes call it."""
        quarters = engine.by_time(batch) if len(next(iter(batch.values()))) >= len(QUARTERS) else None
        grid = engine.count % GRID_EVERY == 0 or engine.count == engine.config.steps
        made = self.generator(engine) if grid else None
        metrics = self.compare(made) if made and self.real else {}
        if self.writer is None:
            return
        for step, (loss, norm) in enumerate(read, engine.count - len(read) + 1):
            self.writer.add_scalar("loss", loss, step)
            self.writer.add_scalar("gradient norm", norm, step)
        for name, value in zip(QUARTERS, [] if quarters is None else quarters.tolist(), strict=False):
            self.writer.add_scalar(f"loss by time/{name}", value, engine.count)
        for name, value in (self.speed(engine) | metrics).items():
            self.writer.add_scalar(name, value, engine.count)
        if made:
            self.writer.add_images("samples", (drawn(made).cpu() + 1) / 2, engine.count)
        self.writer.flush()

    def speed(self, engine: Engine) -> dict[str, float]:
        """Images a second and their tokens, and on a known GPU the utilization of its peak without recomputation."""
        now, last = time.perf_counter(), self.last
        self.last = engine.count, now
        if last is None or last[0] == engine.count:
            return {}
        rate = (engine.count - last[0]) / (now - last[1])  # steps a second
        found = {"images per second": rate * engine.config.batch_size}
        if self.tokens:
            found["tokens per second"] = found["images per second"] * self.tokens
        if peak := peak_of(engine.device, engine.layout.precision):
            found["model flops utilization"] = rate * self.flops / (self.world.size * peak)
        return found

    def generator(self, engine: Engine) -> Pipeline | None:
        """The average, whole on each process, as a generator of images, if the task makes images."""
        with torch.random.fork_rng(devices=[]):
            model = weights.build(self.recipe.table["family"], self.recipe.table["model"])
        model.load_state_dict(distributed.whole_state(engine.ema.model))
        return self.recipe.task.generator(model.to(engine.device).eval().requires_grad_(False))

    def compare(self, made: Pipeline) -> dict[str, float]:
        """Metrics of samples against the real images, on the first process; all processes share the work."""
        assert self.real is not None
        shape = evaluation.shape_of(made)
        real = evaluation.originals(self.real, "train", *shape, COMPARED, self.world, AT_ONCE)
        samples = evaluation.generated(made, COMPARED, self.world, 0, AT_ONCE)
        found = evaluation.compared(self.network, list(real), list(samples), self.world)
        return {f"against real images/{name}": value for name, value in found.items()}


def drawn(made: Pipeline) -> Tensor:
    """Some samples, (N, C, H, W), of as many classes as there are."""
    if not made.labels:
        return made.sample(count=GRID)
    classes = len(made.labels)
    return made.sample(
        [k * classes // GRID if classes > GRID else k % classes for k in range(GRID)], guidance_scale=2.0
    )


def peak_of(device: torch.device, precision: str) -> float | None:
    """The peak rate of a GPU of `CARDS`, in operations a second; None of other devices."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).replace(" ", "-")
    known = (card for key, card in CARDS.items() if re.search(rf"\b{key}\b", name))
    return next((getattr(card, precision) * 1e12 for card in known), None)
