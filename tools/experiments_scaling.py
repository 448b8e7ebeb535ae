"""The twelve models of chapter 18 on data that hardly repeat, run by experiments.py: latents of 200,000 scenes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from experiments import BATCH_SIZE, DEVICE, PATCHES, RUNS, SIZES, machine, store, stored
from safetensors.torch import load_file, save_file
from torch import Tensor

from ditbook import data, weights
from ditbook.data import shapes
from ditbook.data.drawing import render
from ditbook.data.scene import Layout
from ditbook.judges.scene_reader import SceneReader
from ditbook.metrics import fid
from ditbook.models.dit import DiT, DiTConfig
from ditbook.training.loop import Batch, TrainConfig, train
from ditbook.training.tasks.scenes import Scenes

SCENES = 200_000  # to train on: 8,000 steps see each of them five times
AT_ONCE = 2000  # scenes drawn and encoded at once
REAL = 10_240  # held-out scenes that a distance is taken to; further ones are its floor, and the held-out loss
COUNT = 2048  # of both, and of the samples of a distance, 32 of each class
STEPS = (500, 1000, 2000, 4000, 8000)
SEEDS = (0, 1, 2)
LABELS = torch.arange(len(shapes.PAIRS)).repeat_interleave(COUNT // len(shapes.PAIRS))
TIMES, NOISES = 1000, 2  # timesteps are spread evenly over the held-out latents, with so many noises for each


def first(layouts: list[Layout]) -> Tensor:
    """The class of each scene: color and shape of the first of its things, int64 (N,)."""
    return torch.tensor([shapes.PAIRS.index((it.colour, it.shape)) for it in (x.scene.things[0] for x in layouts)])


def drawn(count: int, seed: int, held_out: bool) -> list[Layout]:
    """Scenes of one to three things, of those that are kept from training or of the others."""
    generator, layouts = torch.Generator().manual_seed(seed), list[Layout]()
    while len(layouts) < count:
        layouts += [x for x in shapes.sample(AT_ONCE, generator) if shapes.held_out(x) == held_out]
    return layouts[:count]


@dataclass(frozen=True, kw_only=True)
class ManyScenes(Scenes):
    """Denoise latents of scenes of one to three things, given the class of one of them."""

    def data(self) -> Batch:
        """Class, mean and standard deviation of each scene, encoded once and kept in a file."""
        path = RUNS / "scaling-scenes-latents.safetensors"
        if not path.exists():
            save_file(self.encoded(drawn(self.layouts, 0, held_out=False)), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        return load_file(path)

    @torch.no_grad()
    def encoded(self, layouts: list[Layout]) -> Batch:
        """Class, mean and standard deviation of each scene."""
        assert self.autoencoder is not None
        parts = [layouts[n : n + 200] for n in range(0, len(layouts), 200)]
        encoded = [self.autoencoder.encode(data.to_float(torch.from_numpy(render(part)))) for part in parts]
        mean, std = (torch.cat(part) for part in zip(*encoded, strict=True))
        return {"label": first(layouts), "mean": mean.contiguous(), "std": std.contiguous()}


TASK = ManyScenes(layouts=SCENES, latents_of="autoencoder-shapes")


@cache
def reader() -> SceneReader:
    """It judges."""
    return weights.load("scene-reader").to(DEVICE)


def statistics(images: Tensor) -> fid.Statistics:
    """Mean and covariance of the reader's 48 features."""
    return fid.statistics(lambda part: reader().features(part.to(DEVICE)).cpu(), images)


@cache
def held_out() -> tuple[fid.Statistics, list[Layout]]:
    """Statistics of held-out scenes, and further ones."""
    layouts = drawn(REAL + COUNT, 1, held_out=True)
    return statistics(data.to_float(render(layouts[:REAL]))), layouts[REAL:]


@cache
def held_out_latents() -> Batch:
    """The further scenes as latents, the same sample for every model."""
    batch = TASK.encoded(held_out()[1])
    z = TASK.clean(batch, torch.Generator().manual_seed(2))
    return {"label": batch["label"], "image": z}


@torch.no_grad()
def held_out_loss(model: DiT) -> float:
    """Mean squared error of ε on held-out latents, at the same times and noises for every model."""
    process, generator, errors = TASK.generator(model).diffusion, torch.Generator().manual_seed(3), []
    times = torch.arange(COUNT) * TIMES // COUNT
    for _ in range(NOISES):
        eps = torch.randn(held_out_latents()["image"].shape, generator=generator)
        for part in torch.arange(COUNT).split(128):
            z, y = (held_out_latents()[name][part].to(DEVICE) for name in ("image", "label"))
            t, noise = times[part].to(DEVICE), eps[part].to(DEVICE)
            found = process.predict(model(process.add_noise(z, t, noise), t, y=y), z, t)
            errors.append((found.eps - noise).square().mean().item())
    return sum(errors) / len(errors)


def quality(model: DiT) -> dict[str, float]:
    """Distance and share of samples that show their class, 25 steps of DDIM without guidance; held-out loss."""
    generator = TASK.generator(model)
    parts = [generator.sample(part.tolist(), steps=25, seed=n) for n, part in enumerate(LABELS.split(128))]
    images = torch.cat(parts)
    things = reader().read(images)
    shown = [
        shapes.PAIRS[label] in [(it.colour, it.shape) for it, _ in found]
        for found, label in zip(things, LABELS.tolist(), strict=True)
    ]
    distance = fid.frechet(held_out()[0], statistics(images))
    return {"distance": distance, "shown": sum(shown) / COUNT, "loss": held_out_loss(model)}


def law() -> None:
    """The twelve models with each seed, measured at five numbers of steps."""
    for seed in SEEDS:
        for patch in PATCHES:
            for size in SIZES:
                grow(size, patch, seed)


def grow(size: str, patch: int, seed: int) -> None:
    """Train one model as far as it goes, and store what was not stored yet."""
    key = {"size": size, "patch": patch, "seed": seed}
    path = RUNS / f"scaling-scenes-{size}-{patch}-{seed}.safetensors"
    torch.manual_seed(seed)
    config = DiTConfig.from_name(f"tiny-{size}/{patch}", size=8, channels=4, num_classes=64, learn_sigma=False)
    model, counted = DiT(config).to(DEVICE), config.complexity()
    for steps in STEPS:
        if stored("scaling-scenes", key | {"steps": steps}):
            continue
        training = TrainConfig(steps=steps, batch_size=BATCH_SIZE, warmup_steps=100, ema_decay=0.99, seed=seed)
        start = time.perf_counter()
        trained = train(model, TASK.loss, scenes(), training, path=path)
        row = key | {"steps": steps, "seconds": round(time.perf_counter() - start, 1)}
        row |= {"training loss": sum(trained.losses[-250:]) / 250} | quality(trained.ema)
        counts = {"parameters": counted.trainable, "macs": counted.macs, "batch_size": BATCH_SIZE, "pictures": COUNT}
        store("scaling-scenes", row | counts | machine())


@cache
def scenes() -> Batch:
    """What is trained on."""
    return TASK.data()


def floor() -> None:
    """The distance of real scenes to real scenes, and of what the autoencoder makes of them."""
    real = data.to_float(render(held_out()[1]))
    decoder = TASK.autoencoder
    assert decoder is not None
    made: dict[str, Callable[[], Tensor]] = {
        "other scenes": lambda: real,
        "other scenes, encoded and decoded": lambda: decoder.from_latents(decoder.to_latents(real)),
    }
    for what, images in made.items():
        if not stored("scaling-floor", {"of": what}):
            with torch.no_grad():
                distance = fid.frechet(held_out()[0], statistics(images().clamp(-1, 1)))
            store("scaling-floor", {"of": what, "distance": distance, "pictures": COUNT} | machine())


EXPERIMENTS = {"scaling-scenes": law, "scaling-floor": floor}
