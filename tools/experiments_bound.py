"""The experiment of chapter 11, run by experiments.py: one DiT, trained by the simple loss, the hybrid, and the bound.

All runs have the same data, steps, batches and hyperparameters. `bound` samples its timesteps in proportion to their
losses, `bound, uniform t` uniformly. The simple and the hybrid loss are also trained on the cosine schedule.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from experiments import COUNT, DEVICE, RUNS, machine, real, store, stored
from torch import Tensor

from ditbook import rng
from ditbook.diffusion import samplers
from ditbook.diffusion.bound import ImportantTimesteps, variational_bound
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import drop_condition, null_condition
from ditbook.diffusion.losses import bound_loss
from ditbook.metrics import fid
from ditbook.models.dit import DiT, DiTConfig
from ditbook.training.loop import Batch, Context, TrainConfig, Trained, train
from ditbook.training.tasks.digits import Digits

SEEDS, STEPS = (0, 1, 2), 1500
LOSSES = ("simple", "hybrid", "bound", "bound, uniform t")
PLANS = [("linear", loss) for loss in LOSSES] + [("cosine", loss) for loss in LOSSES[:2]]  # schedule and loss
DIGIT: dict[str, Any] = {"size": 8, "channels": 1, "num_classes": 10}
TRAINING: dict[str, Any] = {"steps": STEPS, "batch_size": 64, "learning_rate": 1e-3, "ema_decay": 0.995}
EDGES = (0, 1, 2, 3, 5, 10, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000)
DRAWN, KEPT = (("linear", "simple"), ("linear", "bound"), ("cosine", "hybrid")), 10  # whose first samples are kept
LABELS = torch.arange(10).repeat(COUNT // 10)
HELD_OUT = 3  # every third held-out digit is measured: 100


def measure() -> None:
    """All losses and schedules of a seed before the next seed."""
    for seed in SEEDS:
        for schedule, loss in PLANS:
            key = {"schedule": schedule, "loss": loss, "seed": seed}
            if not stored("bound", key):
                store("bound", key | row_of(schedule, loss, seed) | machine())


def draw() -> None:
    """The first of the samples that `distance` is of, as 64 grey levels each from 0 to 255, for the first seed.

    Beside them stand the distance, which tells how near a training comes that had to be run again, and the fraction of
    all COUNT samples that are read as the digit of their label.
    """
    for schedule, loss in DRAWN:
        key = {"schedule": schedule, "loss": loss, "seed": SEEDS[0]}
        if not stored("bound-samples", key):
            task = Digits(schedule=schedule)
            model = cast("DiT", trained(task, loss, SEEDS[0]).ema.eval())
            images = sampled(model, cast("GaussianDiffusion", task.process(model)).respace(25), samplers.ddim)
            row = {"distance": distance(images), "read": task.read(images, LABELS.tolist()), "samples": COUNT}
            row["pixels"] = ((images[:KEPT].flatten(1) + 1) * 127.5).round().int().tolist()
            store("bound-samples", key | row | machine())


def row_of(schedule: str, loss: str, seed: int) -> dict[str, Any]:
    """Train one model and measure it."""
    task, start = Digits(schedule=schedule), time.perf_counter()
    found = trained(task, loss, seed)
    last, seconds = found.losses[-500:], round(time.perf_counter() - start, 1)
    row = {"steps": STEPS, "training loss": statistics.mean(last), "its spread": statistics.stdev(last)}
    return row | measures(cast("DiT", found.ema.eval()), task) | {"seconds": seconds}


def trained(task: Digits, loss: str, seed: int) -> Trained:
    """Train one model, or go on from its checkpoint."""
    torch.manual_seed(seed)
    model = DiT(DiTConfig.from_name("tiny-M/2", **DIGIT, learn_sigma=loss != "simple")).to(DEVICE)
    path = RUNS / f"bound-{task.schedule}-{loss.replace(', ', '-').replace(' ', '-')}-{seed}.safetensors"
    by = BoundLoss(task, model, important=loss == "bound") if loss.startswith("bound") else task.loss
    training = TrainConfig(**TRAINING, seed=seed)
    return train(model, cast("Callable[..., Tensor]", by), task.data(), training, path=path, save_every=100_000)


class BoundLoss:
    """The bound in bits per dimension, its timesteps uniform or sampled in proportion to their last losses."""

    def __init__(self, task: Digits, model: DiT, important: bool) -> None:
        self.diffusion = cast("GaussianDiffusion", task.process(model))
        self.timesteps = ImportantTimesteps(self.diffusion.num_steps, DEVICE) if important else None

    def __call__(self, model: DiT, batch: Batch, context: Context) -> Tensor:
        x, generator, labels = batch["image"], context.generator, {"y": batch["label"]}
        if self.timesteps is None:
            t, weight = rng.randint(self.diffusion.num_steps, (len(x),), generator, x.device), x.new_ones(len(x))
        else:
            t, weight = self.timesteps.sample(len(x), generator)
        eps = rng.randn(x.shape, generator, x)
        labels = drop_condition(labels, null_condition(model, labels), model.config.label_dropout, generator)
        terms = bound_loss(model, self.diffusion, x, t, eps, reduction="none", **labels)
        if self.timesteps is not None:
            self.timesteps.update(t, terms)
        return (weight * terms).mean()


def measures(model: DiT, task: Digits) -> dict[str, Any]:
    """Bits per dimension of held-out digits by variance, their terms in groups of timesteps, and Fréchet distances."""
    batch = {name: tensor[::HELD_OUT].to(DEVICE) for name, tensor in task.split("validation").items()}
    diffusion = cast("GaussianDiffusion", task.process(model))
    generator = torch.Generator().manual_seed(5)
    found = variational_bound(model, diffusion, batch["image"], generator, y=batch["label"])
    pairs = list(itertools.pairwise(EDGES))
    terms = {name: [*(v[a:b].sum().item() for a, b in pairs), v[-1].item()] for name, v in found.items()}
    row = {"bits": {name: values.sum().item() for name, values in found.items()}, "terms": terms}
    row |= {"distance": distance(sampled(model, diffusion.respace(25), samplers.ddim))}
    row |= {"distance, ancestral": distance(sampled(model, diffusion.respace(50), samplers.ddpm))}
    return row | {"error": task.held_out_error(model.cpu())}


def sampled(model: DiT, process: GaussianDiffusion, step: samplers.Step) -> Tensor:
    """Digits 0 to 9 in turn, (COUNT, 1, 8, 8), from the same noise for every model.

    Ancestral steps have the variance of the head, or β.
    """
    noise = rng.randn((COUNT, 1, 8, 8), torch.Generator().manual_seed(9), like=torch.empty(0, device=DEVICE))
    labels, generator = LABELS.to(DEVICE), torch.Generator().manual_seed(10)
    images = samplers.sample(model, noise, process, step=step, clip=1.0, generator=generator, y=labels)
    return images.cpu().clamp(-1, 1)


def distance(images: Tensor) -> float:
    """Fréchet distance in pixels to the digits that were learned from, as chapter 16 measures it."""
    return fid.frechet(real(), fid.statistics(lambda x: x.flatten(1), images))
