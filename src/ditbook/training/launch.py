"""A recipe on any number of processes, from its file to the stored weights."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ditbook import weights
from ditbook.training import engine, recipes
from ditbook.training.distributed import Layout, joined, whole_state
from ditbook.training.evaluation import READER
from ditbook.training.recipes import Recipe
from ditbook.training.snapshots import Snapshots
from ditbook.training.tasks import Task
from ditbook.training.watch import Watch

logger = logging.getLogger(__name__)


def train(
    name: str,
    layout: Layout,
    *,
    device: str = "cpu",
    steps: int | None = None,
    parts: int | None = None,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    save_every: int = 500,
    watch: bool = False,
    real: str | None = None,
    features: str = READER,
) -> dict[str, float]:
    """Train a recipe on the processes that `torchrun` started, or on this one alone; all of them call it.

    Args:
        name: as for `recipes.load`.
        layout: how the model lies on the processes.
        device: "cpu" or "cuda".
        steps: in place of the recipe's.
        parts: of a batch, see `engine`; by default those of the checkpoint, or as many as there are processes.
        out: the file of the weights, which the first process writes.
        runs: folder of the folder NAME of checkpoints, the same for all processes.
        save_every: steps between checkpoints.
        watch: write what happens for TensorBoard, beside the checkpoints.
        real, features: as for `Watch`.

    Returns:
        The metric; on other processes than the first nothing.

    Raises:
        ValueError: no such recipe or device, a recipe for one process only, or a checkpoint that does not fit.
        DivergedError: the training diverged, on whichever process.
        OSError: a checkpoint could not be written.
    """
    recipe = recipes.load(name)
    config = recipe.training if steps is None else replace(recipe.training, steps=steps)
    with joined(device) as world:
        snapshots = Snapshots(Path(runs) / recipe.name, world)
        found = snapshots.newest()
        model = recipes.started(recipe)
        data = data_of(recipe, model)
        parts = parts or (found.about["parts"] if found else world.size)
        training = engine.Engine(model, recipe.task.loss, config, layout, world, parts, recipe.task.by_time)
        if found:
            training.resume(snapshots, found)
            if world.first:
                logger.warning("going on from %s; remove %s to start anew", found.folder, snapshots.folder)
        watcher = Watch(snapshots.folder / "tensorboard", recipe, world, real, features) if watch or real else None
        engine.train(training, data, snapshots, save_every=save_every, watch=watcher)
        state = whole_state(training.ema.model)
    if not world.first:
        return {}
    trained = weights.build(recipe.table["family"], recipe.table["model"])
    trained.load_state_dict(state)
    return recipes.export(recipe, trained, config.steps, out, world.device)


def data_of(recipe: Recipe, model: object) -> Mapping[str, Tensor]:
    """The data of a recipe whose batches can be split.

    Raises:
        ValueError: the loss is no mean over rows, or the model makes its own data, or is projected after a step.
    """
    if not recipe.task.splits or type(recipe.task).after_step is not Task.after_step:
        raise ValueError(f"{recipe.name} trains in one process only: its batches cannot be split")
    data = recipe.task.batches(model)
    assert not callable(data)
    return data
