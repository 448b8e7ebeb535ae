"""Training: AdamW, averaged weights, checkpoints that resume exactly. No step makes an accelerator wait for the host.

Letters: `N` rows of the data.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from ditbook import rng
from ditbook.layers.checks import check_types
from ditbook.training.ema import EMA
from ditbook.weights import checkpoint

Batch = dict[str, Tensor]
DECAYS = ("none", "inverse_sqrt")
CHECK_EVERY = 50  # steps between two times that losses are read from the device
ADVICE = "try a smaller learning rate or grad_clip"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Hyperparameters of a training. The defaults suit the small models of this book.

    Raises:
        ValueError: a value out of range, or no such decay.
    """

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 50  # the learning rate grows linearly over these
    decay: str = "none"  # and then stays, or falls with the "inverse_sqrt" of the step
    weight_decay: float = 0.0
    ema_decay: float = 0.995
    grad_clip: float | None = None  # largest norm of the gradient
    seed: int = 0  # of batches and noise; the model is initialized by the caller

    def __post_init__(self) -> None:
        check_types(self)
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be positive, got {self.steps} and {self.batch_size}")
        if not 0 < self.learning_rate < math.inf or self.warmup_steps < 0 or self.weight_decay < 0:
            given = f"{self.learning_rate}, {self.warmup_steps} and {self.weight_decay}"
            raise ValueError(f"learning_rate must be positive, warmup_steps and weight_decay not negative, got {given}")
        if self.decay not in DECAYS:
            raise ValueError(f"no decay {self.decay!r}; there are {' and '.join(DECAYS)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in 0 to 1, below 1, got {self.ema_decay}")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip must be positive or None, got {self.grad_clip}")


@dataclass(frozen=True)
class Context:
    """What a loss may need beside model and batch."""

    step: int  # counted from 0
    generator: torch.Generator  # of noise, on the CPU whatever the model's device; use it through `ditbook.rng`


Loss = Callable[[nn.Module, Batch, Context], Tensor]
Data = Batch | Callable[[torch.Generator], Batch]


class DivergedError(RuntimeError):
    """The loss or its gradient became infinite or not a number."""


class Stepper:
    """A model in training and all that a resumed run needs: average, optimizer, generator, losses.

    Args:
        model: on its device.
        loss: `loss(model, batch, context)` → scalar.
        config: hyperparameters; `steps` is not used.
        after_step: called with the model after each step of the optimizer, also one that was skipped: a projection
            of parameters into their range.
        ema: the average, if it is made already; by default a copy of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        config: TrainConfig,
        after_step: Callable[[nn.Module], None] | None = None,
        ema: EMA | None = None,
    ) -> None:
        self.model, self.loss, self.config, self.after_step = model.train(), loss, config, after_step
        self.generator = torch.Generator().manual_seed(config.seed)
        self.ema = ema or EMA(model, config.ema_decay)
        self.device = next(model.parameters()).device
        fused = self.device.type != "meta"  # the fused kernel skips the step where `found_inf` is 1
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config.weight_decay, fused=fused)
        self.diverged = torch.zeros((), device=self.device)  # 1 from the first step that is not finite on
        if fused:
            self.optimizer.found_inf = self.diverged  # type: ignore[attr-defined]
        self.losses: list[float] = []  # of the steps that were checked
        self.pending: list[Tensor] = []  # loss and norm of the gradient of the steps that were not, (2,) each

    @property
    def count(self) -> int:
        """Number of steps taken."""
        return len(self.losses) + len(self.pending)

    def step(self, batch: Batch) -> None:
        """Take one step, without waiting for the device: `check` reads the loss later.

        From a step on whose loss or gradient is not finite, model, average and optimizer stay as they are.
        """
        step = self.count
        batch = {name: rng.moved(tensor, self.device) for name, tensor in batch.items()}
        value = self.loss(self.model, batch, Context(step, self.generator))
        self.optimizer.zero_grad()
        value.backward()
        self.update(value.detach())

    def update(self, value: Tensor) -> None:
        """The second half of a step: clip the gradients, move model and average, and note the loss `value`."""
        step, limit = self.count, math.inf if self.config.grad_clip is None else self.config.grad_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of all shards
        self.pending.append(torch.stack([value, norm]))
        self.diverged.copy_(torch.maximum(self.diverged, (~self.pending[-1].isfinite()).any()))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * lr_multiplier(step, self.config)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        self.ema.update(self.model, step, skip=self.diverged)

    def check(self) -> list[tuple[float, float]]:
        """Wait for the device and move the losses of the last steps to `losses`.

        Returns:
            Loss and norm of the gradient of each of these steps.

        Raises:
            DivergedError: a loss or the norm of its gradient is not finite; it names the step.
        """
        read = torch.stack(self.pending).tolist() if self.pending else []
        for value, norm in read:
            for what, number in (("loss", value), ("gradient's norm", norm)):
                if not math.isfinite(number):
                    raise DivergedError(f"the {what} is {number} at step {len(self.losses)}; {ADVICE}")
            self.losses.append(value)
        self.pending.clear()
        return read

    def save(self, path: str | Path) -> None:
        """Check, and write everything to a file.

        Raises:
            DivergedError: as for `check`; nothing is written.
        """
        self.check()
        tensors = {"generator": self.generator.get_state(), "losses": torch.tensor(self.losses, dtype=torch.float64)}
        tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        checkpoint.save(path, tensors, {"config": asdict(self.config)})

    def resume(self, path: str | Path) -> None:
        """Load everything from a file.

        Raises:
            ValueError: the file is broken, no checkpoint of a training, or of another configuration or model.
        """
        tensors, metadata = checkpoint.load(path)
        if metadata.keys() != {"config"}:
            raise ValueError(f"{path} is no checkpoint of a training; use another path")
        check_same(path, metadata["config"], self.config)
        try:
            self.model.load_state_dict(_below("model.", tensors))
            self.ema.model.load_state_dict(_below("ema.", tensors))
        except RuntimeError as error:
            raise ValueError(f"{path} belongs to another model: {error}") from error
        state: dict[int, Batch] = {}
        for key, value in _below("optimizer.", tensors).items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.losses = tensors["losses"].tolist()


@dataclass
class Trained:
    """The averaged model and the loss of every step (those before a resume included)."""

    ema: nn.Module
    losses: list[float]


def train(
    model: nn.Module,
    loss: Loss,
    data: Data,
    config: TrainConfig,
    *,
    path: str | Path | None = None,
    save_every: int = 500,
    after_step: Callable[[nn.Module], None] | None = None,
) -> Trained:
    """Train `model` in place.

    Args:
        model: on its device; batches are moved there.
        loss: `loss(model, batch, context)` → scalar; draws its noise from `context.generator`.
        data: tensors of equal length N, whose rows are sampled with replacement; or a function
            `data(generator)` → batch, whose random numbers all come from the generator.
        config: steps, batch size, rates, seed.
        path: checkpoint file. If it exists, training goes on from it, bit for bit as if it had never stopped (on
            one kind of machine).
        save_every: steps between checkpoints; the last step is always saved.
        after_step: called with the model after each step of the optimizer, such as `CLIP.clamp_scale`.

    Raises:
        ValueError: `data` is empty or ragged, or the checkpoint belongs to another configuration or model, or holds
            more steps than `config.steps`.
        DivergedError: the loss or its gradient is not finite. The model keeps the parameters of the last good step,
            and the checkpoint is the last one saved. The error comes within 50 steps of the one that it names.
    """
    next_batch = data if callable(data) else sampled_from(data, config.batch_size)
    stepper = Stepper(model, loss, config, after_step)
    if path is not None and Path(path).exists():
        stepper.resume(path)
        if stepper.count > config.steps:
            raise ValueError(f"{path} holds {stepper.count} steps, more than {config.steps}; use another path")
    with tqdm(initial=stepper.count, total=config.steps) as bar:
        while stepper.count < config.steps:
            stepper.step(next_batch(stepper.generator))
            bar.update()
            if stepper.count % CHECK_EVERY == 0:
                stepper.check()
                bar.set_postfix(loss=f"{stepper.losses[-1]:.3f}")
            if path is not None and (stepper.count % save_every == 0 or stepper.count == config.steps):
                stepper.save(path)
    stepper.check()
    return Trained(stepper.ema.model, stepper.losses)


def lr_multiplier(step: int, config: TrainConfig) -> float:
    """Factor of the learning rate at a step, counted from 0: linear warm-up, then constant or inverse square root.

    Source: Vaswani et al. 2017, section 5.3, whose rate is D^(−1/2)·warmup^(−1/2) at its highest.
    """
    warmup = max(1, config.warmup_steps)
    tail = 1.0 if config.decay == "none" else math.sqrt(warmup / (step + 1))
    return min((step + 1) / warmup, tail)  # (3.13)


def check_same(path: str | Path, before: dict[str, Any], now: TrainConfig) -> None:
    """Check that a checkpoint was trained with the same hyperparameters, the number of steps excepted.

    Raises:
        ValueError: names the first that differs.
    """
    for name, value in asdict(now).items():
        if name != "steps" and before.get(name) != value:
            raise ValueError(f"{path} was trained with {name} {before.get(name)}, not {value}; use another path")


def sampled_from(data: Batch, batch_size: int) -> Callable[[torch.Generator], Batch]:
    """A function `generator` → batch of rows sampled with replacement from tensors of equal length N.

    Raises:
        ValueError: there is no row, or the lengths differ.
    """
    lengths = {name: len(tensor) for name, tensor in data.items()}
    if not lengths or min(lengths.values()) == 0:
        raise ValueError("the dataset is empty: there is nothing to train on")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the tensors of a dataset must be equally long, got {lengths}")
    n = next(iter(lengths.values()))
    device = next(iter(data.values())).device

    def batch(generator: torch.Generator) -> Batch:
        rows = rng.randint(n, (batch_size,), generator, device)
        return {name: tensor[rows] for name, tensor in data.items()}

    return batch


def _below(prefix: str, tensors: Batch) -> Batch:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
