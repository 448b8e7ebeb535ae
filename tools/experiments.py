"""Measure what chapters 16 and 18 report: python tools/experiments.py [ablation] [scaling]

Each measurement is added to src/ditbook/results/NAME.json as soon as it is taken, and what is there already is not
taken again. A training that was stopped goes on from its checkpoint in runs/experiments. A GPU is used if there is one.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from train_weights import pixels, scenes_task, shown

from ditbook import results, weights
from ditbook.data import shapes
from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.metrics import complexity, fid
from ditbook.models.dit import BLOCKS, DiT, DiTConfig
from ditbook.training.loop import TrainConfig, train

FOLDER = Path(results.__file__).parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RECIPE = {"layouts": 30_000, "latents_of": "autoencoder-shapes"}
SIZES = {"S": (32, 2, 2), "M": (64, 3, 4), "L": (96, 4, 4), "XL": (128, 6, 4)}  # width, depth, heads
PATCHES = (8, 4, 2)
COUNT = 1280  # pictures painted for one distance, twenty of each class


@dataclass(frozen=True)
class Run:
    """One model, trained once; measured after each of `steps` with each of `sampling_steps`."""

    experiment: str
    size: str
    patch: int
    block: str
    seed: int
    steps: tuple[int, ...]
    sampling_steps: tuple[int, ...] = (25,)  # after the last step; before it, the first of them alone

    @property
    def config(self) -> DiTConfig:
        width, depth, heads = SIZES[self.size]
        return DiTConfig(8, 4, self.patch, width, depth, heads, num_classes=64, learn_sigma=False, block=self.block)


def runs(experiment: str) -> list[Run]:
    """What an experiment consists of."""
    if experiment == "ablation":
        return [Run(experiment, "M", 2, block, seed, (2000,)) for seed in range(3) for block in BLOCKS]
    return [
        Run(experiment, size, patch, "adaLN-Zero", 0, (500, 1000, 2000), (25, 5, 10, 50, 100) if patch == 2 else (25,))
        for size in SIZES
        for patch in PATCHES
    ]


@lru_cache
def task():
    """The latents of the shapes world, and the loss of a DiT on them."""
    return scenes_task(RECIPE)


@lru_cache
def judge() -> tuple[Any, Any, fid.Statistics]:
    """The autoencoder, the reader, and the reader's statistics of 6,000 real pictures."""
    coder, reader = weights.load("autoencoder-shapes").to(DEVICE), weights.load("classifier-shapes").to(DEVICE)
    real = pixels(torch.from_numpy(shapes.render(shapes.sample(6000, torch.Generator().manual_seed(7), things=1))))
    return coder, reader, fid.statistics(lambda x: reader.features(x.to(DEVICE)), real)


@torch.no_grad()
def quality(model: torch.nn.Module, sampling_steps: int) -> dict[str, float]:
    """Fréchet distance of painted from real pictures, and the share that shows what was asked for. No guidance."""
    coder, reader, real = judge()
    diffusion = GaussianDiffusion(schedules.linear()).respace(sampling_steps)
    noise = torch.randn(COUNT, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    y, images = torch.arange(64).repeat(COUNT // 64), []
    for z, labels in zip(noise.split(320), y.split(320), strict=True):
        z = samplers.ddim(model, z.to(DEVICE), diffusion, y=labels.to(DEVICE))
        images.append(coder.decode(z / coder.config.scale).clamp(-1, 1).cpu())
    painted = torch.cat(images)
    features = fid.statistics(lambda x: reader.features(x.to(DEVICE)), painted)
    return {"distance": fid.frechet(features, real), "agreement": shown(painted, y)}


def measure(run: Run) -> None:
    """Train a model as far as it goes and store what was not stored yet."""
    config, counted = run.config, complexity.formula(run.config)
    path = Path("runs/experiments") / f"{run.experiment}-{run.size}-{run.patch}-{run.block}-{run.seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)
    model = DiT(config).to(DEVICE)
    for steps in run.steps:
        wanted = run.sampling_steps if steps == run.steps[-1] else run.sampling_steps[:1]
        key = {"size": run.size, "patch": run.patch, "block": run.block, "seed": run.seed, "steps": steps}
        missing = [s for s in wanted if not stored(run.experiment, key | {"sampling_steps": s})]
        if not missing:
            continue
        training = TrainConfig(steps, batch_size=128, warmup_steps=200, ema_decay=0.995, grad_clip=1.0, seed=run.seed)
        start = time.perf_counter()
        trained = train(model, task().loss, task().batch, training, path=path, save_every=100_000)
        seconds = time.perf_counter() - start
        for sampling_steps in missing:
            row = key | {"sampling_steps": sampling_steps} | quality(trained.ema.eval(), sampling_steps)
            row |= {"loss": sum(trained.losses[-200:]) / len(trained.losses[-200:])}
            row |= {"parameters": counted.trainable, "macs": counted.macs, "batch_size": 128, "pictures": COUNT}
            row |= {"seconds": round(seconds, 1), "machine": machine(), "torch": torch.__version__.split("+")[0]}
            store(run.experiment, row)
            print(run.experiment, row, flush=True)


def machine() -> str:
    """What the training ran on."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=["ablation", "scaling"], choices=["ablation", "scaling"])
    for experiment in parser.parse_args().experiments:
        for run in runs(experiment):
            measure(run)
