"""What a training does, written for TensorBoard: losses, gradients, speed, and samples."""

import time
from pathlib import Path
from typing import Any

import torch

from ditbook import weights
from ditbook.training import distributed
from ditbook.training.budget import CARDS, budget
from ditbook.training.distributed import Layout, World
from ditbook.training.engine import Engine
from ditbook.training.loop import Batch
from ditbook.training.recipes import Recipe

GRID_EVERY = 5000  # steps between two grids of samples
QUARTERS = ("0 to 1⁄4", "1⁄4 to 1⁄2", "1⁄2 to 3⁄4", "3⁄4 to 1")


class Watch:
    """Writes scalars, and now and then a grid of samples of the average; a `Watcher` of `engine.train`.

    Args:
        folder: of TensorBoard's files.
        recipe: what is trained.
        world: the processes; the first one writes.

    Raises:
        ValueError: the package tensorboard is missing.
    """

    def __init__(self, folder: str | Path, recipe: Recipe, world: World) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("to watch a training, run `pip install tensorboard`") from error
        self.recipe, self.world = recipe, world
        self.writer: Any = SummaryWriter(str(folder)) if world.first else None
        self.flops = budget(recipe, Layout()).flops
        self.last: tuple[int, float] | None = None  # step and time of the call before

    def __call__(self, engine: Engine, batch: Batch, read: list[tuple[float, float]]) -> None:
        """Write what happened since the last call. All processes call it."""
        quarters = engine.by_time(batch) if len(next(iter(batch.values()))) >= len(QUARTERS) else None
        grid = engine.count % GRID_EVERY == 0 or engine.count == engine.config.steps
        state = distributed.whole_state(engine.ema.model) if grid else None
        if self.writer is None:
            return
        for step, (loss, norm) in enumerate(read, engine.count - len(read) + 1):
            self.writer.add_scalar("loss", loss, step)
            self.writer.add_scalar("gradient norm", norm, step)
        for name, value in zip(QUARTERS, [] if quarters is None else quarters.tolist(), strict=False):
            self.writer.add_scalar(f"loss by time/{name}", value, engine.count)
        for name, value in self.speed(engine).items():
            self.writer.add_scalar(name, value, engine.count)
        if state is not None:
            self.draw(engine, state)
        self.writer.flush()

    def speed(self, engine: Engine) -> dict[str, float]:
        """Images a second, and on a known GPU the utilization of its peak rate, without what is computed anew."""
        now, last = time.perf_counter(), self.last
        self.last = engine.count, now
        if last is None or last[0] == engine.count:
            return {}
        rate = (engine.count - last[0]) / (now - last[1])  # steps a second
        found = {"images per second": rate * engine.config.batch_size}
        if peak := peak_of(engine.device, engine.layout.precision):
            found["model flops utilization"] = rate * self.flops / (self.world.size * peak)
        return found

    def draw(self, engine: Engine, state: Batch) -> None:
        """Write a grid of samples of the average, if the task makes images."""
        with torch.random.fork_rng(devices=[]):
            model = weights.build(self.recipe.table["family"], self.recipe.table["model"])
        model.load_state_dict(state)
        images = self.recipe.task.grid(model.to(engine.device).eval())
        if images is not None:
            self.writer.add_images("samples", (images.cpu() + 1) / 2, engine.count)


def peak_of(device: torch.device, precision: str) -> float | None:
    """The peak rate of a GPU of `CARDS`, in operations a second; None of other devices."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).replace(" ", "-")
    return next((getattr(card, precision) * 1e12 for key, card in CARDS.items() if key in name), None)
