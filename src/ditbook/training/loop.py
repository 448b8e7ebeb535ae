"""The training loop of every chapter: AdamW, averaged weights, a bar, checkpoints that resume exactly."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ditbook.training.ema import EMA
from ditbook.weights import checkpoint

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults suit the small models of this book."""

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 50  # the learning rate grows linearly over these
    decay: str = "none"  # and then stays, or falls with the "inverse_sqrt" of the step
    weight_decay: float = 0.0
    ema_decay: float = 0.995
    grad_clip: float | None = None  # largest norm of the gradient
    seed: int = 0  # of batches and noise; the model is initialised by the caller


ADVICE = "try a smaller learning rate or grad_clip"


class DivergedError(RuntimeError):
    """The loss or its gradient became infinite or not a number."""


@dataclass
class Trained:
    """What training leaves: the averaged model and the loss of every step (those before a resume included)."""

    ema: nn.Module
    losses: list[float]


def train(
    model: nn.Module,
    loss: Loss,
    data: Batch,
    config: TrainConfig,
    *,
    path: str | Path | None = None,
    save_every: int = 500,
) -> Trained:
    """Train `model` in place.

    Args:
        model: on its device; `data` is moved there batch by batch.
        loss: `loss(model, batch, generator)` → scalar; draws its noise from the CPU `generator`.
        data: tensors of equal length N; a batch is drawn from them with replacement.
        config: steps, batch size, rates, seed.
        path: checkpoint file. If it exists, training goes on from it, bit for bit as if it had never stopped (on
            one kind of machine).
        save_every: steps between checkpoints; the last step is always saved.

    Raises:
        ValueError: `data` is empty or ragged, or the checkpoint belongs to another configuration or model.
        DivergedError: the loss or its gradient is not finite. The step is not taken; the checkpoint is the last one
            saved.
    """
    n = _length(data)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(config.seed)
    ema = EMA(model, config.ema_decay)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    losses: list[float] = []
    if path is not None and Path(path).exists():
        losses = _resume(path, model, ema, optimizer, generator, config)
    model.train()
    for step in (bar := tqdm(range(len(losses), config.steps), initial=len(losses), total=config.steps)):
        chosen = torch.randint(n, (config.batch_size,), generator=generator)
        value = loss(model, {name: tensor[chosen].to(device) for name, tensor in data.items()}, generator)
        if not value.isfinite():
            raise DivergedError(f"the loss is {value.item()} at step {step}; {ADVICE}")
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_factor(step, config)
        optimizer.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if config.grad_clip is None else config.grad_clip)
        if not norm.isfinite():
            raise DivergedError(f"the gradient's norm is {norm.item()} at step {step}; {ADVICE}")
        optimizer.step()
        ema.update(model, step)
        losses.append(value.item())
        if step % 50 == 0:
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
        if path is not None and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            _save(path, model, ema, optimizer, generator, config, losses)
    return Trained(ema.model, losses)


def rate_factor(step: int, config: TrainConfig) -> float:
    """What the learning rate is multiplied by at a step, counted from 0: a warm-up, then one or a slow decay.

    Raises:
        ValueError: no such decay.

    Source: Vaswani et al. 2017, section 5.3, whose rate is D^(−1/2)·warmup^(−1/2) at its highest.
    """
    if config.decay not in ("none", "inverse_sqrt"):
        raise ValueError(f"no decay {config.decay!r}; there are none and inverse_sqrt")
    warmup = max(1, config.warmup_steps)
    tail = 1.0 if config.decay == "none" else math.sqrt(warmup / (step + 1))
    return min((step + 1) / warmup, tail)  # (3.13)


def _length(data: Batch) -> int:
    lengths = {name: len(tensor) for name, tensor in data.items()}
    if not lengths or min(lengths.values()) == 0:
        raise ValueError("the dataset is empty: there is nothing to train on")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the tensors of a dataset must be equally long, got {lengths}")
    return next(iter(lengths.values()))


def _save(
    path: str | Path,
    model: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
    losses: list[float],
) -> None:
    tensors = {"generator": generator.get_state(), "losses": torch.tensor(losses, dtype=torch.float64)}
    tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    checkpoint.save(path, tensors, {"config": asdict(config)})


def _resume(
    path: str | Path,
    model: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
) -> list[float]:
    """Load a checkpoint into everything; return the losses so far."""
    tensors, metadata = checkpoint.load(path)
    for name, now in asdict(config).items():
        if name != "steps" and metadata["config"][name] != now:
            raise ValueError(f"{path} was trained with {name} {metadata['config'][name]}, not {now}; use another path")
    try:
        for prefix, module in (("model.", model), ("ema.", ema.model)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another model: {error}") from error
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return tensors["losses"].tolist()
