"""Training on any number of processes: the same steps as one process, to rounding.

A batch is split into `parts`, each with random numbers of its own, derived from seed, step and part. A process computes
one or more of them, so their number, not that of the processes, says what is computed; and a run that is resumed, by as
many processes or by others, goes on with the same rows and the same noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from ditbook import rng
from ditbook.training import distributed
from ditbook.training.distributed import ByTime, Layout, World
from ditbook.training.ema import EMA
from ditbook.training.loop import CHECK_EVERY, Batch, Context, DivergedError, Loss, Stepper, TrainConfig, check_same
from ditbook.training.snapshots import Found, Snapshots

ROWS, NOISE, WATCH = 0, 1, 2  # what random numbers are for


class Order:
    """Which rows are in which batch. An epoch is a permutation of all rows; a batch may end one and begin the next.

    Args:
        rows: their number.
        batch_size: of a step.
        seed: of the permutations.

    Raises:
        ValueError: there is no row.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        if rows < 1:
            raise ValueError("the dataset is empty: there is nothing to train on")
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.epoch, self.permutation = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """The rows of the batch of a step, (batch_size,)."""
        places = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = places // self.rows
        return torch.cat([self._of(epoch)[places[epochs == epoch] % self.rows] for epoch in epochs.unique().tolist()])

    def _of(self, epoch: int) -> Tensor:
        if epoch != self.epoch:
            self.epoch = epoch
            self.permutation = torch.randperm(self.rows, generator=generator(self.seed, ROWS, epoch))
        return self.permutation


class Engine(Stepper):
    """A model in training on this and other processes.

    Args:
        model: on the CPU, the same on all processes.
        loss: the mean over the rows of a batch.
        config: hyperparameters; `batch_size` is that of all processes together.
        layout: how the model lies on the processes.
        world: the processes.
        parts: how many parts a batch has, a multiple of the number of processes.
        by_time: the loss of a batch in each quarter of the time, as `Task.by_time`.

    Raises:
        ValueError: the parts cannot be shared out evenly, or the batch cannot be split into them.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        config: TrainConfig,
        layout: Layout,
        world: World,
        parts: int,
        by_time: ByTime | None = None,
    ) -> None:
        if parts % world.size:
            raise ValueError(f"a batch in {parts} parts cannot be shared by {world.size} processes; use a divisor")
        if config.batch_size % parts:
            raise ValueError(f"a batch of {config.batch_size} rows cannot be split into {parts} equal parts")
        ema = EMA(model, config.ema_decay)
        self.layout, self.world, self.parts = layout, world, parts
        self.objective = distributed.wrapped(model, loss, layout, world, by_time)
        distributed.place(ema.model, ema.model, layout, world)
        super().__init__(model, loss, config, ema=ema)
        for parameter in model.parameters():  # so that a checkpoint holds the same names at every step
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=self.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @property
    def mine(self) -> range:
        """The parts of a batch that this process computes."""
        count = self.parts // self.world.size
        return range(self.world.rank * count, (self.world.rank + 1) * count)

    def rows(self, order: Order) -> Tensor:
        """The rows of the next step that belong to this process."""
        return order(self.count).view(self.parts, -1)[self.mine.start : self.mine.stop].flatten()

    def step(self, batch: Batch) -> None:
        """Take one step with this process's rows, part by part; gradients are averaged over all parts.

        From a step on that is not finite on any process, model, average and optimizer stay as they are on all.
        """
        step, count = self.count, len(self.mine)
        batch = {name: rng.moved(tensor, self.device) for name, tensor in batch.items()}
        pieces = {name: tensor.chunk(count) for name, tensor in batch.items()}
        total = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for place, part in enumerate(self.mine):
            piece = {name: chunks[place] for name, chunks in pieces.items()}
            context = Context(step, generator(self.config.seed, NOISE, step, part))
            with distributed.last_only(self.objective, place + 1 == count):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.layout.precision == "bfloat16"):
                    value = self.objective(piece, context) / count
                value.backward()
            total += value.detach()
        dist.all_reduce(total)  # so that all processes note the same loss, and stop together
        self.update(total / self.world.size)

    def by_time(self, batch: Batch) -> Tensor | None:
        """The loss of this process's rows in each quarter of the time, (4,), averaged over all processes."""
        batch = {name: rng.moved(tensor, self.device) for name, tensor in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.layout.precision == "bfloat16"):
            numbers = generator(self.config.seed, WATCH, self.count, self.world.rank)
            return distributed.times(self.objective, batch, numbers)

    def state(self) -> dict[str, Any]:
        """All tensors of a checkpoint, those of this process or its shards."""
        moments = {name: self.optimizer.state[parameter] for name, parameter in self.model.named_parameters()}
        losses = torch.tensor(self.losses, dtype=torch.float64)
        ema = self.ema.model.state_dict()
        return {"model": self.model.state_dict(), "ema": ema, "optimizer": moments, "losses": losses}

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of the run."""
        shapes = {name: list(parameter.shape) for name, parameter in self.model.named_parameters()}
        return {"config": asdict(self.config), "parts": self.parts, "count": self.count, "shapes": shapes}

    def resume(self, snapshots: Snapshots, found: Found) -> None:  # type: ignore[override]
        """Go on from a checkpoint, whatever number of processes wrote it.

        Raises:
            ValueError: it is of another configuration or model, or its batches had other parts.
        """
        check_same(found.folder, found.about["config"], self.config)
        for name, value in self.about().items():
            if name in ("parts", "shapes") and found.about[name] != value:
                what = _difference(found.about[name], value)
                raise ValueError(f"{found.folder} was trained with other {name} {what}")
        self.losses = [0.0] * found.about["count"]
        state = self.state()
        snapshots.load(found.folder, state)
        self.losses = state["losses"].tolist()


Watcher = Callable[[Engine, Batch, list[tuple[float, float]]], None]


def train(
    engine: Engine,
    data: Mapping[str, Tensor],
    snapshots: Snapshots,
    *,
    save_every: int = 500,
    watch: Watcher | None = None,
) -> None:
    """Train to the end.

    Args:
        engine: the model in training, resumed or not.
        data: tensors, or what is indexed like them, of equal length.
        snapshots: where checkpoints go; the last step is always saved.
        save_every: steps between checkpoints.
        watch: called on all processes after losses were read, with engine, last batch, and loss and norm of each step.

    Raises:
        ValueError: `data` is empty or ragged, or the engine has taken more steps than are wanted.
        DivergedError: a loss or gradient is not finite on some process; it comes on all of them and names the step.
        OSError: a checkpoint could not be written; those before are untouched.
    """
    lengths = {name: len(tensor) for name, tensor in data.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the tensors of a dataset must be equally long, got {lengths}")
    config = engine.config
    order = Order(next(iter(lengths.values()), 0), config.batch_size, config.seed)
    if engine.count > config.steps:
        raise ValueError(f"{snapshots.folder} holds {engine.count} steps, more than {config.steps}; use another path")
    with tqdm(initial=engine.count, total=config.steps, disable=None if engine.world.first else True) as bar:
        while engine.count < config.steps:
            rows = engine.rows(order)
            batch = {name: tensor[rows] for name, tensor in data.items()}
            engine.step(batch)
            bar.update()
            due = engine.count % save_every == 0 or engine.count == config.steps
            if engine.count % CHECK_EVERY == 0 or due:
                read = _check(engine, snapshots)
                bar.set_postfix(loss=f"{engine.losses[-1]:.3f}")
                if watch is not None:
                    watch(engine, batch, read)
                snapshots.poll()
            if due:
                snapshots.save(engine.count, engine.state(), engine.about())
    snapshots.poll(finish=True)


def generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose numbers depend on all of the key, and on nothing else."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


def _check(engine: Engine, snapshots: Snapshots) -> list[tuple[float, float]]:
    """Read the losses; where one is not finite, the checkpoint in the making is completed first."""
    try:
        return engine.check()
    except DivergedError:
        snapshots.poll(finish=True)
        raise


def _difference(before: Any, now: Any) -> str:
    """What differs, in a few words: of parameters the first one only."""
    if not isinstance(before, dict):
        return f"({before}, not {now})"
    name = next(name for name in [*now, *before] if before.get(name) != now.get(name))
    return f"({name}: {before.get(name)}, not {now.get(name)})"
