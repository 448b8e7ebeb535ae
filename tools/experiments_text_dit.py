"""What chapter 19 says of its two models: emoji for names and hands, and scenes for captions, judged task by task.

Letters: `N` texts, `J` width of CLIP's space.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import experiments
import torch
from experiments_unclip import short
from torch import Tensor, nn

from ditbook import pipeline, weights
from ditbook.data import captions, shapes
from ditbook.data.scene import Scene, shows
from ditbook.diffusion.losses import denoising_loss
from ditbook.judges import composition
from ditbook.layers.attention import causal_mask
from ditbook.models.clip import CLIP
from ditbook.models.text_dit import TextDiT, TextDiTConfig
from ditbook.training.loop import Batch, Context, TrainConfig, train
from ditbook.training.tasks import clip
from ditbook.training.tasks import emoji as emoji_task
from ditbook.training.tasks import text_dit as task

EMOJI, SCENES = "text-dit-emoji", "text-dit-scenes"
SEEDS = (0, 1, 2)  # of the noise
KINDS = ("held-out", "seen", "never seen")  # pairs of known thing and hand, pairs of training, things of no training
PAIRS = {"seen": shapes.SEEN_PAIRS, "new": shapes.NEW_PAIRS}
SCALES = (1.0, 2.5, 4.0, 6.0)  # of guidance
CALLS = (2, 4, 8, 15)  # steps of sampling, beside those of the task
UP, SIDE = ("above", "below"), ("left of", "right of")
ACROSS = {  # for each relation that is said, which ones are looked for
    "as said": {relation: (relation,) for relation in (*UP, *SIDE)},
    "opposite": dict(zip((*UP, *SIDE), ((it,) for it in (*UP[::-1], *SIDE[::-1])), strict=True)),
    "across": {**dict.fromkeys(UP, SIDE), **dict.fromkeys(SIDE, UP)},  # each of the two
}
SMALL = {"size": 8, "channels": 4, "depth": 4, "vocabulary": 29, "context": 18, "text_width": 96}  # of the ablation
TRAINING = {"steps": 2500, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 250, "decay": "inverse_sqrt"}
TRAINING |= {"ema_decay": 0.995, "grad_clip": 1.0}
GUIDES = (2.0, 4.0)  # scales of guidance of the ablation
VARIANTS: dict[str, dict[str, Any]] = {  # one thing changed in each; about equal numbers of parameters, but in "mean"
    "cross-attention": {},
    "mean": {},  # no attention to words
    "joint": {"block": "joint", "width": 72},
    "CLIP": {},  # its text encoder in place of the learned one
    "short captions": {},
    "noise": {},  # predicted on the linear schedule
}


def settings() -> Iterator[dict[str, Any]]:
    """The task's own guidance and steps with every seed, then one of the two changed, with one seed."""
    for seed in SEEDS:
        yield {"guidance": task.GUIDANCE, "steps": task.STEPS, "seed": seed}
    for guidance in SCALES:
        if guidance != task.GUIDANCE:
            yield {"guidance": guidance, "steps": task.STEPS, "seed": 0}
    for steps in CALLS:
        yield {"guidance": task.GUIDANCE, "steps": steps, "seed": 0}


def images(name: str, condition: dict[str, Tensor], guidance: float, steps: int, seed: int) -> Tensor:
    """Images of texts by a shipped model, (N, 3, 32, 32)."""
    model, about = weights.load(name), weights.metadata(name)
    coder, process = weights.load(about["latents_of"]), pipeline.process(model, None, about["schedule"])
    generator, tokens, y = torch.Generator().manual_seed(seed), condition["tokens"], condition.get("y")
    return task.generate(model, process, coder, tokens, y, generator, guidance=guidance, steps=steps)


def asked(kind: str) -> tuple[dict[str, Tensor], Tensor]:
    """Names and hands of a kind, and CLIP's vectors of their own drawings, (N, J)."""
    split = {"held-out": "pairs", "seen": "train", "never seen": "things"}[kind]
    condition, own = task.emoji_condition(split), emoji_task.embedded(judge(), emoji_task.images(split))
    if kind != "seen":
        return condition, own
    rows = torch.linspace(0, len(own) - 1, len(task.emoji_condition("pairs")["y"])).long()  # evenly over the names
    return {name: value[rows] for name, value in condition.items()}, own[rows]


def judge() -> Any:
    """CLIP of the emoji."""
    return weights.load(weights.metadata(EMOJI)["clip"])


def emoji() -> None:
    """How often a picture's own drawing is the nearest of the hand's, or among five, by CLIP."""
    known, hands = emoji_task.embedded(judge(), emoji_task.images("train")), task.emoji_condition("train")["y"]
    for setting in settings():
        for kind in KINDS:
            key = {"kind": kind, **setting}
            if experiments.stored("text-emoji", key):
                continue
            condition, own = asked(kind)
            found = emoji_task.embedded(judge(), images(EMOJI, condition, **setting))
            rank = emoji_task.ranks(found, own, known, condition["y"][:, None] == hands)
            row = key | {"drawings": len(own)}
            row |= {f"at {k}": round((rank < k).double().mean().item(), 4) for k in (1, 5)}
            experiments.store("text-emoji", row | experiments.machine())


def scenes() -> None:
    """Fractions of images that pass each task of GenEval, and of those that show all that is said and no more."""
    for setting in settings():
        for kind, pairs in PAIRS.items():
            key = {"pairs": kind, **setting}
            if experiments.stored("text-scenes", key):
                continue
            generator, row = torch.Generator().manual_seed(100 + setting["seed"]), dict(key)
            for name in composition.TASKS:
                wanted = composition.scenes(name, task.PER_TASK, generator, pairs=pairs)
                row |= judged(name, wanted, images(SCENES, {"tokens": task.scene_tokens(wanted)}, **setting))
            experiments.store("text-scenes", row | {"scenes": task.PER_TASK} | experiments.machine())


def positions() -> None:
    """Of images whose captions say a relation, how many show it, how many its opposite, and how many one across it."""
    for seed in SEEDS:
        for kind, pairs in PAIRS.items():
            key = {"pairs": kind, "seed": seed}
            if experiments.stored("text-positions", key):
                continue
            generator = torch.Generator().manual_seed(300 + seed)
            wanted = composition.scenes("position", task.PER_TASK, generator, pairs=pairs)
            x = images(SCENES, {"tokens": task.scene_tokens(wanted)}, task.GUIDANCE, task.STEPS, seed)
            row = key | relations(weights.load("scene-reader").read(x), wanted)
            experiments.store("text-positions", row | {"scenes": task.PER_TASK} | experiments.machine())


def relations(seen: list[Any], wanted: list[Scene]) -> dict[str, float]:
    """How many readings show the relation of their scene, how many its opposite, how many each one across it."""
    row = {}
    for what, others in ACROSS.items():
        shown = [
            composition.passed("position", found, replace(scene, relations=(other,)))
            for found, scene in zip(seen, wanted, strict=True)
            for other in others[scene.relations[0]]
        ]
        row[what] = round(sum(shown) / len(shown), 4)
    return row


def judged(name: str, wanted: list[Any], x: Tensor) -> dict[str, float]:
    """How many of the images of a task pass it, and how many show exactly their scene."""
    both = list(zip(weights.load("scene-reader").read(x), wanted, strict=True))
    passed = sum(composition.passed(name, *one) for one in both) / len(both)
    exact = sum(shows(*one) for one in both) / len(both)
    return {name: round(passed, 4), f"{name}, exact": round(exact, 4)}


class ClipWords(nn.Module):
    """The text encoder of chapter 8, kept as it is, in place of the learned one; the maps after it are learned."""

    def __init__(self, config: TextDiTConfig) -> None:
        super().__init__()
        encoder: CLIP = weights.load("clip-shapes")
        self.clip = [encoder.requires_grad_(False)]  # in a list, so that it is no part of the model
        self.project, self.project_mean = (nn.Linear(config.text_width, config.width) for _ in range(2))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Texts (B, S) → a vector for each word (B, S, D), and a map of the words' mean, without padding, (B, D)."""
        encoder, length = self.clip[0], tokens.shape[1]
        x = encoder.embed(tokens) + encoder.text_positions[:length]
        for layer in encoder.text_layers:
            x = layer(x, causal_mask(length))
        x, real = encoder.text_norm(x), (tokens != 0)[:, :, None].float()
        return self.project(x), self.project_mean((x * real).sum(dim=1) / real.sum(dim=1))


def variant(name: str, seed: int) -> TextDiT:
    """A fresh small model of the ablation."""
    torch.manual_seed(seed)
    model = TextDiT(TextDiTConfig(**{**SMALL, "width": 96, **VARIANTS[name]}))
    if name == "mean":
        for block in model.blocks:
            block.cross.requires_grad_(False)  # it starts at zero, and stays
    if name == "CLIP":
        model.text_encoder = ClipWords(model.config)
    return model


@cache
def latents() -> Batch:
    """Latents of the scenes that the shipped model was trained on, and their captions."""
    return task.DrawScenes(latents_of="autoencoder-shapes", layouts=40_000).data()


def described(name: str) -> Batch:
    """The training set of a variant: half of the captions short, or all in full."""
    if name != "short captions":
        return latents()
    chance, layouts = random.Random(0), task.DrawScenes(latents_of="autoencoder-shapes", layouts=40_000).sampled
    texts = [(captions.english if chance.random() < 0.5 else lambda it: short(it, chance))(it.scene) for it in layouts]
    return latents() | {"tokens": clip.prompts(texts)[0]}


def ablation() -> None:
    """Small models of the scenes with one part changed, each trained alike with three seeds, and judged as `scenes`.

    With each scale of guidance, as what is best for one need not be best for another.
    """
    coder = weights.load("autoencoder-shapes")
    for seed in SEEDS:
        for name in VARIANTS:
            keys = [{"variant": name, "seed": seed, "guidance": guidance} for guidance in GUIDES]
            keys = [key for key in keys if not experiments.stored("text-ablation", key)]
            if not keys:
                continue
            model = variant(name, seed)
            process = pipeline.process(model, None, "linear" if name == "noise" else pipeline.STRAIGHT)

            def loss(model: Any, batch: Batch, context: Context, process: Any = process) -> Tensor:
                x = coder.scaled_latents(batch["mean"], batch["std"], context.generator)
                return denoising_loss(model, process, x, context.generator, dropout=0.1, tokens=batch["tokens"])

            path = experiments.RUNS / f"text-ablation-{name.replace(' ', '-')}-{seed}.safetensors"
            made = train(model, loss, described(name), TrainConfig(**TRAINING, seed=seed), path=path)
            about = {"parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}
            about |= {"loss": round(sum(made.losses[-500:]) / 500, 4), "scenes": task.PER_TASK}
            for key in keys:
                generator, row = torch.Generator().manual_seed(200 + seed), key | about
                for part in composition.TASKS:
                    wanted = composition.scenes(part, task.PER_TASK, generator, pairs=shapes.SEEN_PAIRS)
                    given = task.scene_tokens(wanted), None, torch.Generator().manual_seed(seed)
                    x = task.generate(made.ema.eval(), process, coder, *given, guidance=key["guidance"])
                    row |= judged(part, wanted, x)
                experiments.store("text-ablation", row | experiments.machine())


EXPERIMENTS = {"text-emoji": emoji, "text-scenes": scenes, "text-positions": positions, "text-ablation": ablation}
