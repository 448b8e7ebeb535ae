"""The experiments of chapter 12, run by experiments.py: paths and predictions, samplers, and kinds of guidance."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from experiments import DEVICE, RUNS, machine, store, stored
from torch import Tensor

from ditbook import data, pipeline, rng, weights
from ditbook.data import shapes
from ditbook.data.drawing import render
from ditbook.diffusion import guidance, samplers, schedules, solvers
from ditbook.diffusion.process import Model, Process
from ditbook.metrics import fid
from ditbook.metrics.precision_recall import precision_recall
from ditbook.training import recipes
from ditbook.training.loop import train
from ditbook.training.tasks.digits import Digits
from ditbook.training.tasks.scenes import accuracy_of_samples

SEEDS = (0, 1, 2)
COUNT = 1000  # digits for one distance, 100 of each
LABELS = torch.arange(10).repeat(COUNT // 10)
READ = 500  # of them, the first 50 of each, are read
PATHS = (("linear", "eps"), ("linear", "v"), ("cosine", "eps"), ("cosine", "v"), ("straight", "v"))
STEPS = 4000  # of training, for each path
SCENES = "dit-shapes-latent"
LAYOUTS = 1280  # scenes for one distance, 20 of each class
SAMPLERS: dict[str, tuple[samplers.Step, int]] = {  # with the calls of the model in one step
    "ddpm": (partial(samplers.ddpm, variance="posterior"), 1),
    "ddpm_beta": (partial(samplers.ddpm, variance="beta"), 1),
    "ddim": (samplers.ddim, 1),
    "heun": (solvers.heun, 2),
    "dpm_solver": (solvers.dpm_solver, 1),
    "dpm_solver_sde": (partial(solvers.dpm_solver, stochastic=True), 1),
    "unipc": (solvers.unipc, 1),
}
CALLS = (4, 6, 8, 10, 15, 25, 50, 100, 250)  # at most; a step of two calls may leave one over
SLOW = ("ddpm", "ddpm_beta", "ddim")  # measured with more than 50 calls by every seed, the others by one
PART = 40  # samples in one call of the model
FEW = tuple(calls for calls in CALLS if calls <= 25)
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
MIDDLE = (0.3, 3.0)  # the noise levels between which guidance in an interval acts


@cache
def digits() -> Digits:
    """The 28×28 digits."""
    return Digits(dataset="mnist")


@dataclass(frozen=True)
class World:
    """What samples of some weights are measured by."""

    labels: Tensor  # of the samples
    guidance_scale: float
    measure: Callable[[Tensor], dict[str, float]]  # images → distance and agreement
    real: Callable[[], Tensor]  # as many real images with these labels, other ones than the distance is taken to


@cache
def held_out() -> dict[str, Tensor]:
    """The held-out digits."""
    return digits().split("validation")


def digits_measured(images: Tensor) -> dict[str, float]:
    """Fréchet distance to the held-out digits, and the fraction read as their label."""
    *_, distance = digits().distances(images).values()
    return {"distance": distance, "agreement": digits().read(images[:READ], LABELS[:READ].tolist())}


@cache
def features() -> fid.Features:
    """Those of the scene reader."""
    return weights.load("scene-reader").features


@cache
def real_scenes() -> fid.Statistics:
    """Statistics of other scenes of one thing than those to learn from."""
    layouts = shapes.sample(2 * LAYOUTS, torch.Generator().manual_seed(5), things=1)
    return fid.statistics(features(), data.to_float(render(layouts)))


def scenes_measured(images: Tensor) -> dict[str, float]:
    """Fréchet distance to real scenes, times 1,000, and the fraction that shows its label."""
    found = fid.statistics(features(), images)
    labels = torch.arange(64).repeat(LAYOUTS // 64).tolist()
    return {"distance": 1000 * fid.frechet(real_scenes(), found), "agreement": accuracy_of_samples(images, labels)}


def train_digits() -> Tensor:
    """The first digits of the train split, whose labels are `LABELS`."""
    return digits().data()["image"][:COUNT]


def drawn_scenes() -> Tensor:
    """Scenes of one thing, 20 of each class."""
    layouts = shapes.sample(100 * LAYOUTS // 10, torch.Generator().manual_seed(6), things=1)
    labels = shapes.labels(layouts)
    rows = torch.stack([(labels == label).nonzero()[: LAYOUTS // 64, 0] for label in range(64)], dim=1).flatten()
    return data.to_float(render([layouts[row] for row in rows.tolist()]))


WORLDS = {
    "dit-digits-28": World(LABELS, 1.0, digits_measured, train_digits),
    "dit-digits-28-straight": World(LABELS, 1.0, digits_measured, train_digits),
    SCENES: World(torch.arange(64).repeat(LAYOUTS // 64), 2.0, scenes_measured, drawn_scenes),
}


def levels(process: Process, spacing: str, count: int) -> Process:
    """A process of `count` noise levels, evenly spread over its timesteps or as Karras et al. spread them."""
    if spacing == "uniform":
        return process.respace(count)
    finite = process.sigmas[process.sigmas.isfinite()]
    low, high = finite[0].item(), min(finite[-1].item(), 80.0)
    return process.at_sigmas(schedules.karras_sigmas(count, low, high))


def generated(
    model: Model,
    process: Process,
    labels: Tensor,
    shape: tuple[int, ...],
    step: samplers.Step,
    clip: float | None,
    seed: int,
) -> Tensor:
    """Samples for the labels; noise and fresh noise follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    noise = rng.randn((len(labels), *shape), generator, torch.empty(0, device=DEVICE))
    return samplers.sample(model, noise, process, step=step, clip=clip, generator=generator, y=labels.to(DEVICE))


def in_parts(model: Model) -> Model:
    """The model with a batch cut into parts that fit into a processor's cache: the same values, sooner."""

    def predict(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        parts = zip(x.split(PART), t.expand(len(x)).split(PART), y.split(PART), strict=True)
        return torch.cat([model(x, t, y=y) for x, t, y in parts])

    return predict


def quality() -> None:
    """The distance of every sampler, at each number of calls and each spacing of the noise levels."""
    for seed in SEEDS:
        for name, world in WORLDS.items():
            real = {"weights": name, "sampler": "real"}
            if not stored("samplers", real):
                store("samplers", real | world.measure(world.real()))
            maker = pipeline.load(name, DEVICE)
            config = maker.model.config
            maker.model.compile()
            guided = guidance.ClassifierFreeGuidance(maker.model, world.guidance_scale)
            model = in_parts(maker.model if world.guidance_scale == 1 else guided)
            clip = 1.0 if maker.autoencoder is None else None
            for spacing, sampler, calls in plans(name, seed):
                key = {"weights": name, "sampler": sampler, "spacing": spacing, "calls": calls, "seed": seed}
                if stored("samplers", key):
                    continue
                step, each = SAMPLERS[sampler]
                process = levels(maker.diffusion, spacing, (calls + each - 1) // each)
                shape = (config.channels, config.size, config.size)
                x = generated(model, process, world.labels, shape, step, clip, seed)
                if maker.autoencoder is not None:
                    with torch.no_grad():
                        x = maker.autoencoder.from_latents(x)
                measured = world.measure(x.cpu().clamp(-1, 1))
                store("samplers", key | {"guidance_scale": world.guidance_scale} | measured | machine())


def plans(name: str, seed: int) -> list[tuple[str, str, int]]:
    """Spacing, sampler and calls of all runs of some weights; on straight paths there is no ancestral step.

    Scenes are measured with two seeds, all but ancestral steps with one beyond 25 calls, and the spacing of Karras et
    al. with one seed on digits, on scenes for 2M's stochastic form alone.
    """
    if name == SCENES:
        few = [("uniform", sampler, calls) for sampler in SAMPLERS for calls in FEW]
        few += [("karras", "dpm_solver_sde", calls) for calls in FEW if calls >= 10]
        few += [("uniform", "ddpm", calls) for calls in CALLS if calls > 25]
        others = [sampler for sampler in SAMPLERS if sampler != "ddpm" and seed == SEEDS[0]]
        few += [("uniform", sampler, calls) for sampler in others for calls in CALLS if calls > 25]
        return few if seed in SEEDS[:2] else []
    found = [
        ("uniform", sampler, calls)
        for sampler in SAMPLERS
        for calls in CALLS
        if calls <= 50 or sampler in SLOW or seed == SEEDS[0]
    ]
    if seed == SEEDS[0]:
        found += [("karras", sampler, calls) for sampler in SAMPLERS if "ddpm" not in sampler for calls in FEW]
    return [plan for plan in found if not (name.endswith("straight") and "ddpm" in plan[1])]


def paths() -> None:
    """The same DiT, data, steps and seeds; what differs is the path from image to noise, and what is predicted."""
    recipe = recipes.load("dit-digits-28")
    for seed in SEEDS:
        for schedule, predicts in PATHS:
            task = replace(recipe.task, schedule=schedule, predicts=predicts)
            key = {"path": schedule, "predicts": predicts, "seed": seed, "steps": STEPS}
            if not stored("paths", key | {"calls": 50}):
                start = time.perf_counter()
                torch.manual_seed(seed)
                model = weights.build(recipe.table["family"], recipe.table["model"]).to(DEVICE)
                config = replace(recipe.training, seed=seed, steps=STEPS)
                path = RUNS / f"paths-{schedule}-{predicts}-{seed}.safetensors"
                ema = train(model, task.loss, task.data(), config, path=path, save_every=2000).ema.eval()
                seconds = {"seconds": round(time.perf_counter() - start, 1)}
                for calls in (4, 8, 16, 50):
                    for sampler in ("ddim", "dpm_solver"):
                        process = task.process(ema).respace(calls)
                        x = generated(ema, process, LABELS, (1, 28, 28), SAMPLERS[sampler][0], 1.0, seed)
                        row = key | {"calls": calls, "sampler": sampler, "guidance_scale": 1.0}
                        store("paths", row | digits_measured(x.cpu().clamp(-1, 1)) | seconds | machine())


def kinds() -> None:
    """Guidance by the model without its condition, rescaled or in an interval, and by a worse model."""
    maker, guide = pipeline.load("dit-digits-28", DEVICE), pipeline.load("dit-digits-28-guide", DEVICE)
    process = levels(maker.diffusion, "uniform", 25)
    low, high = (maker.diffusion.timesteps_of(torch.tensor(sigma)).item() for sigma in MIDDLE)
    makers: Mapping[str, Callable[[float], Model]] = {
        "classifier-free": lambda scale: guidance.ClassifierFreeGuidance(maker.model, scale),
        "rescaled": lambda scale: guidance.ClassifierFreeGuidance(maker.model, scale, rescale=0.7),
        "interval": lambda scale: guidance.ClassifierFreeGuidance(maker.model, guidance.interval(scale, low, high)),
        "autoguidance": lambda scale: guidance.Autoguidance(maker.model, guide.model, scale),
    }
    for seed in SEEDS:
        for kind, guided in makers.items():
            for scale in SCALES:
                key = {"kind": kind, "guidance_scale": scale, "seed": seed}
                if not stored("guidance", key):
                    step = SAMPLERS["dpm_solver"][0]
                    x = generated(guided(scale), process, LABELS, (1, 28, 28), step, 1.0, seed).cpu().clamp(-1, 1)
                    store("guidance", key | digits_measured(x) | variety(x) | machine())


def variety(images: Tensor) -> dict[str, Any]:
    """Precision and recall against held-out digits, and how far samples of one digit are apart; 1: like real ones."""
    real = held_out()["image"].flatten(1)
    precision, recall = precision_recall(real, images.flatten(1))
    apart = [apart_by_class(x, y) for x, y in ((images, LABELS), (real, held_out()["label"]))]
    return {"precision": precision, "recall": recall, "spread": apart[0] / apart[1]}


def apart_by_class(images: Tensor, labels: Tensor) -> float:
    """Mean distance between two different images of one class."""
    groups = [images[labels == label].flatten(1) for label in range(10)]
    return sum(torch.pdist(group).mean().item() for group in groups) / len(groups)


EXPERIMENTS = {"samplers": quality, "paths": paths, "guidance": kinds}
