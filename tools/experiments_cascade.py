"""Further experiments of chapter 13, run by experiments.py: noise on the input of a stage, and a cascade of them."""

from dataclasses import replace

import torch
from experiments import DEVICE, RUNS, machine, store, stored
from torch import Tensor

from ditbook import pipeline, rng, weights
from ditbook.diffusion import editing
from ditbook.models.unet import Upsampler, UpsamplerConfig
from ditbook.training import recipes
from ditbook.training.loop import train
from ditbook.training.tasks import faces

SEEDS = (0, 1, 2)
CONFIG = UpsamplerConfig(size=16, channels=3, patch=2, low=8, width=32, multipliers=(1, 2))
STEPS = 400
LEVELS = (1, 300)  # below which the noise on the small image is in training: none, or some
SHOWN = (0, 50, 100, 200, 299)  # its level at sampling, of the model that knows it
ERRORS = (0.0, 0.1, 0.2, 0.4)  # standard deviations of what is wrong with a small image
REPEATS, CALLS = 4, 12
COUNT = 200  # samples of a cascade
ONE_MODEL = 25  # calls, and those of the three stages of a cascade, which are as much work together
STAGES = (20, 12, 13)
SAFE = (0, 50, 100, 200, 299)


def stage() -> None:
    """A stage from 8×8 to 16×16, trained with noise on its input and without, for true, wrong and made small images."""
    task = recipes.load("upsampler-faces-16").task
    for seed in SEEDS:
        for levels in LEVELS:
            if stored("augmentation", {"seed": seed, "levels": levels}):
                continue
            torch.manual_seed(seed)
            mine, model = replace(task, levels=levels), Upsampler(CONFIG).to(DEVICE)
            config = replace(recipes.load("upsampler-faces-16").training, steps=STEPS, seed=seed)
            path = RUNS / f"augmentation-{levels}-{seed}.safetensors"
            ema = train(model, mine.loss, mine.data(), config, path=path, save_every=200).ema.eval()
            for level in SHOWN if levels > 1 else (0,):
                key = {"seed": seed, "levels": levels, "level": level, "steps": STEPS}
                store("augmentation", key | measured(ema, level, seed) | machine())


def measured(model: Upsampler, level: int, seed: int) -> dict[str, float]:
    """Of true small images, with errors of several sizes: error of the large ones. Of made ones: distances."""
    generator = torch.Generator().manual_seed(100 + seed)
    process = pipeline.process(model, "x_start", "cosine").respace(CALLS)
    x = faces.reduced(faces.load("held out"), 16).repeat(REPEATS, 1, 1, 1)
    low, found = faces.reduced(x, 8), {}
    for error in ERRORS:
        wrong = low + error * rng.randn(low.shape, generator, low)
        out = editing.upsample(model, wrong, process, size=16, level=level, generator=generator)
        found[f"error at {error}"] = (out - x).square().mean().item()
    made = editing.upsample(model, small(seed), process, size=16, level=level, generator=generator)
    images, details, _ = faces.Faces().distances(made).values()
    return found | {"distance": images, "distance of details": details, "n": len(x), "made": COUNT}


def small(seed: int, calls: int = STAGES[0]) -> Tensor:
    """Samples of the first stage, (COUNT, 3, 8, 8)."""
    maker = pipeline.load("unet-faces-8", DEVICE)
    return maker.sample(count=COUNT, steps=calls, seed=seed)


def cascade() -> None:
    """One model, and three stages that have had and do as much work together."""
    one = pipeline.load("unet-faces", DEVICE)
    for seed in SEEDS:
        plans = [("one", None), ("training faces", None), *(("cascade", level) for level in SAFE)]
        for name, level in plans:
            key = {"model": name, "level": level, "seed": seed}
            if stored("cascade", key):
                continue
            if name == "one":
                x = one.sample(count=COUNT, steps=ONE_MODEL, seed=seed)
            elif name == "cascade":
                x = enlarged(seed, level)
            else:
                rows = torch.randperm(len(faces.load("train")), generator=torch.Generator().manual_seed(seed))
                x = faces.load("train")[rows[:COUNT]]
            store("cascade", key | distances(x) | machine())


def enlarged(seed: int, level: int, count: int = COUNT) -> Tensor:
    """Samples of the cascade: 8×8, 16×16, 32×32."""
    x, generator = small(seed)[:count], torch.Generator().manual_seed(100 + seed)
    for name, calls in zip(("upsampler-faces-16", "upsampler-faces-32"), STAGES[1:], strict=True):
        model = weights.load(name).to(DEVICE)
        process = pipeline.process(model, "x_start", "cosine").respace(calls)
        x = editing.upsample(model, x, process, size=model.config.size, level=level, generator=generator).clamp(-1, 1)
    return x


def distances(x: Tensor) -> dict[str, float]:
    """To the training faces."""
    images, details, nearest = faces.Faces().distances(x).values()
    return {"n": len(x), "distance": images, "distance of details": details, "nearest": nearest}


EXPERIMENTS = {"augmentation": stage, "cascade": cascade}
