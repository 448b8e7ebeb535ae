"""The experiments of chapter 14: what vectors of CLIP keep, what comes of each source of vectors, and captions.

Letters: `N` scenes, `J` width of CLIP's space.
"""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import experiments
import torch
import torch.nn.functional as F
from torch import Tensor

from ditbook import pipeline, weights
from ditbook.data import captions, shapes
from ditbook.data.scene import COLOURS, SIZES, Layout, Place, Scene, Thing
from ditbook.layers.directions import unscaled
from ditbook.models.prior import DiffusionPrior, DiffusionPriorConfig
from ditbook.training.loop import TrainConfig, train
from ditbook.training.tasks import unclip

SEEDS = (0, 1, 2)
COUNT = 150  # scenes of each kind, of one thing and of two of different colors and shapes
GUIDANCE = 1.5  # of the decoder, as `unclip.decode` has it
SOURCES = ("image", "text", "text + gap", "nearest", "diffusion", "autoregressive")
FRACTIONS = (0.0, 0.5, 0.8, 0.95)  # of full captions
PROMPTS = ("short", "rewritten", "full")
WRONG = 0.2  # fraction of short captions that belong to another image
TRAINING = {"steps": 1000, "batch_size": 64, "warmup_steps": 100, "ema_decay": 0.99, "grad_clip": 1.0}
SMALL = {"joint": 64, "vocabulary": 29, "context": 14, "width": 64, "depth": 3, "heads": 4}
Seen = list[tuple[Thing, Place]]


@cache
def scenes(things: int, count: int = COUNT) -> list[Layout]:
    """Held-out layouts of one thing, or of two that share neither color nor shape."""
    found = []
    for layout in unclip.sample_layouts(20_000, seed=1, held_out=True):
        names = [(thing.colour, thing.shape) for thing in layout.scene.things]
        if len(names) == things and all(len(set(part)) == things for part in zip(*names, strict=True)):
            found.append(layout)
    return found[:count]


@cache
def training_set(count: int = 15_000) -> tuple[list[Layout], dict[str, Tensor]]:
    """Layouts as in the recipes, which take 20,000, with tokens and vectors."""
    layouts = unclip.sample_layouts(count)
    return layouts, unclip.embedded(layouts, weights.load("clip-shapes"))


def kept(seen: Seen, layout: Layout) -> dict[str, bool]:
    """What of a layout a reading has; each needs as many things as there are."""
    wanted = list(zip(layout.scene.things, layout.places, strict=True))

    def same(key: Callable[[Thing], Any]) -> bool:
        return sorted(key(thing) for thing, _ in seen) == sorted(key(thing) for thing, _ in wanted)

    near = len(seen) == len(wanted) and all(
        any(max(abs(x - u), abs(y - v)) <= 3 for _, (u, v) in seen) for _, (x, y) in wanted
    )
    return {
        "number": len(seen) == len(wanted),
        "colours": same(lambda thing: thing.colour),
        "shapes": same(lambda thing: thing.shape),
        "sizes": same(lambda thing: thing.size),
        "places": near,
        "pairs": same(lambda thing: (thing.colour, thing.shape)),
        "whole": same(lambda thing: (thing.size, thing.colour, thing.shape)),
    }


def counted(images: Tensor, layouts: list[Layout]) -> dict[str, float]:
    """Fractions of images that keep each part; and of those with the right colors and shapes, those bound rightly."""
    reader = weights.load("scene-reader")
    rows = [kept(seen, layout) for seen, layout in zip(reader.read(images), layouts, strict=True)]
    result = {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}
    parts = [row for row in rows if row["colours"] and row["shapes"]]
    return result | {"parts": len(parts), "bound": sum(row["pairs"] for row in parts)}


@torch.no_grad()
def vectors_from(source: str, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Unit vectors of images (N, J), as each source guesses them from captions; "image" knows the image."""
    if source == "image":
        return batch["image"]
    text, tokens = batch["text"], batch["tokens"]
    if source == "text":
        return text
    if source == "autoregressive":
        return unclip.write_vectors(weights.load("prior-autoregressive"), tokens, text, generator)
    if source.startswith("diffusion"):
        prior = weights.load("prior-diffusion")
        return unclip.generate_vectors(prior, tokens, text, generator, candidates=1 if source.endswith("1") else 2)
    if source == "nearest":  # the image of the priors' training set with the most similar caption
        known = training_set(20_000)[1]
        return known["image"][(text @ known["text"].T).argmax(dim=1)]
    known = training_set()[1]
    return unscaled(text + known["image"].mean(dim=0) - known["text"].mean(dim=0))


def decoded(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Images of vectors (N, J) by the shipped decoder: (N, 3, 32, 32)."""
    model, coder = weights.load("unclip-shapes"), weights.load("autoencoder-shapes")
    process = pipeline.process(model, None, weights.metadata("unclip-shapes")["schedule"])
    return unclip.decode(model, process, coder, vectors, generator, guidance=GUIDANCE)


def sources() -> None:
    """What is kept of scenes whose images are decoded from vectors of each source."""
    for things in (1, 2):
        layouts = scenes(things)
        batch = unclip.embedded(layouts, weights.load("clip-shapes"))
        for seed in SEEDS:
            for source in SOURCES:
                key = {"source": source, "things": things, "seed": seed, "scenes": len(layouts)}
                if experiments.stored("unclip-sources", key):
                    continue
                generator = torch.Generator().manual_seed(seed)
                vectors = vectors_from(source, batch, generator)
                cosine = round((vectors * batch["image"]).sum(dim=1).mean().item(), 4)
                row = key | {"similarity": cosine} | counted(decoded(vectors, generator), layouts)
                experiments.store("unclip-sources", row | experiments.machine())


def short(scene: Scene, chance: random.Random) -> str:
    """A caption as people write them: one of the things, its color half of the time, and nothing else."""
    thing = chance.choice(scene.things)
    return f"a {thing.colour} {thing.shape}" if chance.random() < 0.5 else f"a {thing.shape}"


def noisy(scenes: list[Scene], chance: random.Random) -> list[str]:
    """Short captions, some of which belong to another image."""
    return [short(chance.choice(scenes) if chance.random() < WRONG else scene, chance) for scene in scenes]


def rewritten(prompt: str, chance: random.Random) -> str:
    """A prompt with the words that it leaves open filled in, as a language model would: "a large red star"."""
    *colour, shape = prompt.split(" ")[1:]
    chosen = colour[0] if colour else chance.choice([c for c in COLOURS if (c, shape) in shapes.SEEN_PAIRS])
    return f"a {chance.choice(SIZES)} {chosen} {shape}"


def fits(seen: Seen, prompt: str) -> bool:
    """Whether an image shows a thing with all that a prompt names."""
    words = prompt.split(" ")[1:]
    return any(set(words) <= {thing.size, thing.colour, thing.shape} for thing, _ in seen)


def mixed_captions(fraction: float, seed: int) -> dict[str, Tensor]:
    """The training set, each image with its full caption, with this probability, or with a short one that may be wrong.

    Vectors of captions are those of the captions that are left.
    """
    layouts, full = training_set()
    chance, model = random.Random(seed), weights.load("clip-shapes")
    texts = noisy([it.scene for it in layouts], chance)
    poor = texts_and_vectors(texts, model)
    chosen = torch.tensor([chance.random() < fraction for _ in layouts])[:, None]
    width = max(full["tokens"].shape[1], poor["tokens"].shape[1])
    tokens, others = (F.pad(part["tokens"], (0, width - part["tokens"].shape[1])) for part in (full, poor))
    text = torch.where(chosen, full["text"], poor["text"])
    return {"tokens": torch.where(chosen, tokens, others), "text": text, "image": full["image"]}


@torch.no_grad()
def texts_and_vectors(texts: list[str], model: Any) -> dict[str, Tensor]:
    """Tokens and vectors of captions."""
    tokens, end = unclip.prompts(texts)
    parts = zip(tokens.split(500), end.split(500), strict=True)
    return {"tokens": tokens, "text": torch.cat([model.encode_text(*part) for part in parts])}


def caption_mixture() -> None:
    """A small prior trained on each mixture of captions, judged with short, rewritten and full prompts of one thing."""
    layouts = scenes(1)
    judge, reader, chance = weights.load("clip-shapes"), weights.load("scene-reader"), random.Random(0)
    asked = [short(it.scene, chance) for it in layouts]
    texts = {"short": asked, "rewritten": [rewritten(it, chance) for it in asked]}
    texts["full"] = [captions.english(it.scene) for it in layouts]
    for seed in SEEDS:
        for fraction in FRACTIONS:
            key = {"fraction": fraction, "seed": seed, "steps": TRAINING["steps"]}
            if all(experiments.stored("unclip-captions", key | {"prompts": kind}) for kind in PROMPTS):
                continue
            prior = trained_prior(fraction, seed)
            for kind in PROMPTS:
                generator, batch = torch.Generator().manual_seed(seed), texts_and_vectors(texts[kind], judge)
                vectors = unclip.generate_vectors(prior, batch["tokens"], batch["text"], generator, candidates=1)
                images = decoded(vectors, generator)
                seen = reader.read(images)
                fit = round(sum(map(fits, seen, texts[kind] if kind == "full" else asked)) / len(seen), 4)
                row = key | {"prompts": kind, "scenes": len(layouts), "fits": fit}
                experiments.store("unclip-captions", row | experiments.machine())


def trained_prior(fraction: float, seed: int) -> DiffusionPrior:
    """A small diffusion prior, trained on captions of which this fraction is full."""
    torch.manual_seed(seed)
    model, config = DiffusionPrior(DiffusionPriorConfig(**SMALL)), TrainConfig(**TRAINING, seed=seed)
    path = experiments.RUNS / f"unclip-captions-{fraction}-{seed}.safetensors"

    def loss(prior, batch, context):
        return unclip.prior_loss(prior, batch, context.generator, 0.1)

    return train(model, loss, mixed_captions(fraction, seed), config, path=path).ema


EXPERIMENTS = {"unclip-sources": sources, "unclip-captions": caption_mixture}
