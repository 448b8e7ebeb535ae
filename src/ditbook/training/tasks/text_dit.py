"""Text to image: a DiT that is given words, on latents of emoji and on those of scenes of the shapes world.

Letters: `N` images, `S` tokens of a text.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ditbook import data, pipeline, rng, weights
from ditbook.data import captions, emoji, shapes
from ditbook.data.drawing import render
from ditbook.data.scene import Layout, Scene, shows
from ditbook.diffusion import samplers
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.diffusion.losses import denoising_loss
from ditbook.diffusion.process import Process
from ditbook.judges import composition
from ditbook.judges.scene_reader import SceneReader
from ditbook.layers.checks import check_positive
from ditbook.models.autoencoder import Autoencoder
from ditbook.models.text_dit import TextDiT
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task, clip
from ditbook.training.tasks import emoji as emoji_task

PART = 500  # images that are encoded or generated at once
GUIDANCE, STEPS = 4.0, 30  # of the samples that are measured
GRID = 4  # pixels between the places of things, the side of a latent's cell, so that a small model learns in an hour
PER_TASK = 100  # scenes of each task of `judges.composition`


@dataclass(frozen=True, kw_only=True)
class _FromText(Task[TextDiT]):
    """Denoise latents of images, given what their texts say."""

    latents_of: str  # weights of an autoencoder
    schedule: str = pipeline.STRAIGHT

    @abstractmethod
    def images(self) -> Tensor:
        """The images to train on, (N, 3, H, W) in [−1, 1]."""

    @abstractmethod
    def condition(self) -> Batch:
        """What the model is given beside each of them: texts, (N, S), and whatever else."""

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder whose latents are modeled."""
        return weights.load(self.latents_of)

    @torch.no_grad()
    def data(self) -> Batch:
        """Means and standard deviations of latents, encoded once, and the condition."""
        parts = self.images().split(PART)
        mean, std = (torch.cat(part) for part in zip(*map(self.autoencoder.encode, parts), strict=True))
        return {"mean": mean, "std": std} | self.condition()

    def loss(self, model: TextDiT, batch: Batch, context: Context) -> Tensor:
        """The denoising loss of latents that are sampled anew in each step."""
        condition: dict[str, Any] = {name: value for name, value in batch.items() if name not in ("mean", "std")}
        x = self.autoencoder.scaled_latents(batch["mean"], batch["std"], context.generator)
        process = pipeline.process(model, None, self.schedule)
        return denoising_loss(model, process, x, context.generator, dropout=model.config.dropout, **condition)

    def generated(self, model: TextDiT, tokens: Tensor, y: Tensor | None = None) -> Tensor:
        """Images for texts and classes, always from the same noise."""
        process = pipeline.process(model, None, self.schedule)
        return generate(model, process, self.autoencoder, tokens, y, torch.Generator().manual_seed(2))


@dataclass(frozen=True, kw_only=True)
class DrawEmoji(_FromText):
    """Denoise latents of drawings, given the thing's name and the hand."""

    clip: str  # weights of the CLIP that judges

    def images(self) -> Tensor:
        """The drawings of the train split."""
        return emoji_task.images("train")

    def condition(self) -> Batch:
        """Their names, (N, S), and hands, (N,)."""
        return emoji_condition("train")

    @torch.no_grad()
    def evaluate(self, model: TextDiT) -> dict[str, float]:
        """How often the drawing of a pair of thing and hand is the most similar to its sample, or among five.

        Of held-out pairs, and of as many of the train split. By CLIP, a sample is compared with that drawing and all
        training drawings of the hand.
        """
        judge = weights.load(self.clip)
        train, hands = emoji_task.embedded(judge, emoji_task.images("train")), emoji_condition("train")["y"]
        pairs = emoji_condition("pairs")
        count = len(pairs["y"])
        rows = torch.linspace(0, len(train) - 1, count).long()  # evenly spread over the names
        seen = {name: value[rows] for name, value in emoji_condition("train").items()}
        wanted = {"held-out": emoji_task.embedded(judge, emoji_task.images("pairs")), "seen": train[rows]}
        metric: dict[str, float] = {}
        for kind, condition in (("held-out", pairs), ("seen", seen)):
            found = emoji_task.embedded(judge, self.generated(model, **condition))
            allowed = condition["y"][:, None] == hands
            rank = emoji_task.ranks(found, wanted[kind], train, allowed)
            metric |= emoji_task.recalls(rank, f"of {count} {kind} pairs")
        return metric


@dataclass(frozen=True, kw_only=True)
class DrawScenes(_FromText):
    """Denoise latents of scenes of one to three things at coarse places, given captions.

    Some pairs of words never occur.
    """

    layouts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")

    @cached_property
    def sampled(self) -> list[Layout]:
        """Layouts of seen pairs, on the grid, that are not held out."""
        layouts = shapes.sample(self.layouts, torch.Generator().manual_seed(0), pairs=shapes.SEEN_PAIRS)
        placed = map(on_grid, layouts)
        return [layout for layout in placed if layout is not None and not shapes.held_out(layout)]

    def images(self) -> Tensor:
        """The layouts, rendered."""
        return data.to_float(torch.from_numpy(render(self.sampled)))

    def condition(self) -> Batch:
        """Their captions, (N, S)."""
        return {"tokens": scene_tokens([layout.scene for layout in self.sampled])}

    def evaluate(self, model: TextDiT) -> dict[str, float]:
        """Fractions of samples that pass the tasks of `judges.composition`, with seen pairs and with new ones.

        Also how many of these samples show all that their captions say, and no more.
        """
        reader: SceneReader = weights.load("scene-reader")
        metric: dict[str, float] = {}
        for kind, pairs in (("seen", shapes.SEEN_PAIRS), ("new", shapes.NEW_PAIRS)):
            generator, exact = torch.Generator().manual_seed(1), []
            for task in composition.TASKS:
                scenes = composition.scenes(task, PER_TASK, generator, pairs=pairs)
                read = reader.read(self.generated(model, tokens=scene_tokens(scenes)))
                both = list(zip(read, scenes, strict=True))
                right = sum(composition.passed(task, *one) for one in both)
                exact += [shows(*one) for one in both]
                metric[f"{task}, {len(both)} of {kind} pairs"] = round(right / len(both), 4)
            metric[f"all that is said, {len(exact)} of {kind} pairs"] = round(sum(exact) / len(exact), 4)
        return metric


def emoji_condition(split: str) -> Batch:
    """Of each drawing of a split its name as tokens, (N, 12), and its hand, (N,)."""
    dataset = emoji.load(split)
    return {"tokens": emoji_task.prompts(dataset["caption"])[0], "y": torch.tensor(list(dataset["hand"]))}


def on_grid(layout: Layout) -> Layout | None:
    """The same scene with its things at the nearest multiples of `GRID`, or None where they do not fit there."""
    try:
        return Layout(layout.scene, tuple((GRID * round(x / GRID), GRID * round(y / GRID)) for x, y in layout.places))
    except ValueError:
        return None


def scene_tokens(scenes: list[Scene]) -> Tensor:
    """Captions of scenes, with begin and end, (N, S)."""
    return clip.prompts([captions.english(scene) for scene in scenes])[0]


@torch.no_grad()
def generate(
    model: TextDiT,
    diffusion: Process,
    autoencoder: Autoencoder,
    tokens: Tensor,
    y: Tensor | None,
    generator: torch.Generator,
    *,
    guidance: float = GUIDANCE,
    steps: int = STEPS,
) -> Tensor:
    """Images for texts, by DDIM, which on straight paths is Euler's step. Another generator gives other images.

    Args:
        model: its prediction is what `diffusion` says.
        diffusion: the process that the model was trained on.
        autoencoder: decodes the latents.
        tokens: texts with begin and end, (N, S).
        y: classes, (N,), for a model with classes, or None.
        generator: of the noise.
        guidance: scale of classifier-free guidance; 1 is none.
        steps: calls of the model, each for all images.

    Returns:
        (N, 3, H, W) in [−1, 1].
    """
    config = model.config
    noise = rng.randn((len(tokens), config.channels, config.size, config.size), generator, like=model.pos_embed)
    guided = model if guidance == 1 else ClassifierFreeGuidance(model, guidance)
    given = {"tokens": tokens} if y is None else {"tokens": tokens, "y": y}
    condition: dict[str, Any] = {name: rng.moved(tensor, noise.device) for name, tensor in given.items()}
    x = samplers.sample(guided, noise, diffusion.respace(steps), **condition)
    return autoencoder.from_latents(x).clamp(-1, 1)
