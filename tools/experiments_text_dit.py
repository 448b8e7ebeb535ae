"""What chapter 19 says of its two models: emoji for names and hands, and scenes for captions, judged task by task.

Letters: `N` texts, `J` width of CLIP's space.
"""

from collections.abc import Iterator
from typing import Any

import experiments
import torch
from torch import Tensor

from ditbook import pipeline, weights
from ditbook.data import shapes
from ditbook.data.scene import shows
from ditbook.judges import composition
from ditbook.training.tasks import emoji as emoji_task
from ditbook.training.tasks import text_dit as task

EMOJI, SCENES = "text-dit-emoji", "text-dit-scenes"
SEEDS = (0, 1, 2)  # of the noise
KINDS = ("held-out", "seen", "never seen")  # pairs of known thing and hand, pairs of training, things of no training
PAIRS = {"seen": shapes.SEEN_PAIRS, "new": shapes.NEW_PAIRS}
SCALES = (1.0, 2.5, 4.0, 6.0)  # of guidance
CALLS = (2, 4, 8, 15)  # steps of sampling, beside those of the task


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


def judged(name: str, wanted: list[Any], x: Tensor) -> dict[str, float]:
    """How many of the images of a task pass it, and how many show exactly their scene."""
    both = list(zip(weights.load("scene-reader").read(x), wanted, strict=True))
    passed = sum(composition.passed(name, *one) for one in both) / len(both)
    exact = sum(shows(*one) for one in both) / len(both)
    return {name: round(passed, 4), f"{name}, exact": round(exact, 4)}


EXPERIMENTS = {"text-emoji": emoji, "text-scenes": scenes}
