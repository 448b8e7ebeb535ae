"""Measure what chapters 15, 16 and 18 report: python tools/experiments.py [EXPERIMENT ...]

Each measurement is added to src/ditbook/results/NAME.json as soon as it is taken, and what is there already is not
taken again. A training that was stopped goes on from its checkpoint in runs/experiments. A GPU is used if there is one.
"""

import argparse
import json
import os
import platform
import time
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from train_weights import FOLDER as RECIPES
from train_weights import TASKS, digits_task, held_out_loss

from ditbook import data, results, weights
from ditbook.data import digits
from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.metrics import complexity, fid
from ditbook.models.dit import BLOCKS, DiT, DiTConfig
from ditbook.training.loop import TrainConfig, train

FOLDER = Path(results.__file__).parent
RUNS = Path("runs/experiments")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = {"S": (32, 2, 2), "M": (64, 3, 4), "L": (96, 4, 4), "XL": (128, 6, 4)}  # width, depth, heads
PATCHES = (4, 2, 1)  # of pictures of 8 × 8: 4, 16 and 64 tokens
COUNT = 1500  # digits painted for one distance, as many as there are to learn from
BATCH_SIZE = 128


@dataclass(frozen=True)
class Run:
    """One model, trained once; measured after each of `steps`, after 1,000 with each of `sampling_steps`."""

    experiment: str
    size: str
    patch: int
    block: str
    seed: int
    steps: tuple[int, ...]
    sampling_steps: tuple[int, ...] = (25,)  # at other times the first of them alone

    @property
    def config(self) -> DiTConfig:
        width, depth, heads = SIZES[self.size]
        return DiTConfig(8, 1, self.patch, width, depth, heads, num_classes=10, learn_sigma=False, block=self.block)


def runs(experiment: str) -> list[Run]:
    """What an experiment consists of."""
    if experiment in ("ablation", "random-start"):
        blocks = BLOCKS if experiment == "ablation" else BLOCKS[-1:]
        return [Run(experiment, "M", 2, block, seed, (500, 1000, 2000)) for seed in range(3) for block in blocks]
    short, long = (250, 500, 1000), (250, 500, 1000, 4000)
    return [
        Run(
            experiment,
            size,
            patch,
            "adaLN-Zero",
            seed=0,
            steps=short if patch == 1 or size == "XL" else long,
            sampling_steps=(25, 5, 10, 50, 100) if patch == 4 else (25,),
        )
        for patch in PATCHES
        for size in SIZES
    ]


@lru_cache
def task():
    """The digits, and the loss of a DiT on them."""
    return digits_task({"family": "dit"})


@lru_cache
def real() -> fid.Statistics:
    """Statistics of the digits to learn from; the features are the pixels."""
    return fid.statistics(lambda x: x.flatten(1), data.tensors(digits.load("train"))["image"])


@torch.no_grad()
def distance(model: torch.nn.Module, sampling_steps: int) -> float:
    """Fréchet distance in pixels between painted and real digits, DDIM without guidance."""
    diffusion = GaussianDiffusion(schedules.linear()).respace(sampling_steps)
    noise = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    parts = zip(noise.split(500), torch.arange(10).repeat(COUNT // 10).split(500), strict=True)
    painted = [samplers.ddim(model, x.to(DEVICE), diffusion, clip=1.0, y=y.to(DEVICE)).cpu() for x, y in parts]
    return fid.frechet(fid.statistics(lambda x: x.flatten(1), torch.cat(painted)), real())


def measure(run: Run) -> None:
    """Train a model as far as it goes and store what was not stored yet."""
    counted = complexity.formula(run.config)
    path = RUNS / f"{run.experiment}-{run.size}-{run.patch}-{run.block}-{run.seed}.safetensors"
    torch.manual_seed(run.seed)
    model = DiT(run.config)
    if run.experiment == "random-start":  # adaLN-Zero without its zeros
        for block in model.blocks:
            torch.nn.init.xavier_uniform_(block.modulation.weight)
    model.to(DEVICE)
    for steps in run.steps:
        wanted = run.sampling_steps if steps == 1000 else run.sampling_steps[:1]
        key = {"size": run.size, "patch": run.patch, "block": run.block, "seed": run.seed, "steps": steps}
        missing = [s for s in wanted if not stored(run.experiment, key | {"sampling_steps": s})]
        if not missing:
            continue
        training = TrainConfig(steps, BATCH_SIZE, warmup_steps=100, ema_decay=0.99, seed=run.seed)
        start = time.perf_counter()
        ema = train(model, task().loss, task().batch, training, path=path, save_every=100_000).ema.eval()
        seconds = round(time.perf_counter() - start, 1)
        loss = held_out_loss(ema.cpu(), "dit", GaussianDiffusion(schedules.linear()))
        ema.to(DEVICE)
        for sampling_steps in missing:
            row = key | {"sampling_steps": sampling_steps, "distance": distance(ema, sampling_steps), "loss": loss}
            row |= {"parameters": counted.trainable, "macs": counted.macs, "batch_size": BATCH_SIZE, "pictures": COUNT}
            store(run.experiment, row | {"seconds": seconds} | machine())


def pixel_noise() -> None:
    """The pixel DiT of chapter 15, asked for the noise instead of the clean picture."""
    recipe = tomllib.loads((RECIPES / "dit-shapes-pixel.toml").read_text(encoding="utf-8")) | {"predicts": "eps"}
    training, shapes_task = TrainConfig(**recipe["training"]), TASKS[recipe["task"]](recipe)
    if stored("pixel-noise", {"steps": training.steps}):
        return
    torch.manual_seed(training.seed)
    model = weights.build(recipe["family"], recipe["model"])
    trained = train(model, shapes_task.loss, shapes_task.batch, training, path=RUNS / "pixel-noise.safetensors")
    row = {"steps": training.steps, "seed": training.seed, "loss": sum(trained.losses[-500:]) / 500}
    store("pixel-noise", row | shapes_task.measure(trained.ema.eval()) | machine())


def machine() -> dict[str, str]:
    """What the training ran on."""
    gpu, cpu = DEVICE.type == "cuda", f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {"machine": torch.cuda.get_device_name() if gpu else cpu, "torch": torch.__version__.split("+")[0]}


def rows(experiment: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{experiment}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def stored(experiment: str, key: dict[str, Any]) -> bool:
    """Whether a measurement is there already."""
    return any(all(row[name] == value for name, value in key.items()) for row in rows(experiment))


def store(experiment: str, row: dict[str, Any]) -> None:
    """Add a row; the file is replaced as a whole."""
    path = FOLDER / f"{experiment}.json"
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in [*rows(experiment), row])
    path.with_suffix(".tmp").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)
    print(experiment, row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["ablation", "random-start", "pixel-noise", "scaling"]
    parser.add_argument("experiments", nargs="*", default=names, choices=names)
    RUNS.mkdir(parents=True, exist_ok=True)
    for experiment in parser.parse_args().experiments:
        if experiment == "pixel-noise":
            pixel_noise()
            continue
        for run in runs(experiment):
            measure(run)
