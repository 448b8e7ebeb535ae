"""What chapter 8 says of a hand left out: CLIP and a classifier learn from five hands and name drawings by the sixth.

Both have the same image tower, from the same numbers, and see the same batches. The classifier has a learned vector of
its own for each name where CLIP has what its text tower makes of the name, and it chooses among all names at each step,
where CLIP chooses among those of the batch.

Letters: `N` drawings, `K` names, `J` width of CLIP's space.
"""

from functools import cache
from typing import Any

import experiments
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn

from ditbook import data
from ditbook.data import emoji, splits
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.objectives.contrastive import contrastive_loss
from ditbook.training.loop import Batch, Context, TrainConfig, train
from ditbook.training.tasks import emoji as task

NAME = "emoji-hands"
HANDS = ("twemoji", "noto-v1")  # left out of training
MODELS = ("CLIP", "classifier")
SEEDS = (0, 1, 2)
STEPS = (200, 400, 800)
GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")  # not faces, people and signs
RATES = (1e-3, 2e-3, 4e-3, 8e-3)  # tried on the first hand with the first seed, up to TRIED steps
TRIED = 400
CONFIG = CLIPConfig(
    **{"size": 32, "patch": 8, "width": 96, "depth": 2, "heads": 4, "vocabulary": 1424, "context": task.LONGEST},
    **{"text_width": 96, "text_depth": 2, "text_heads": 4, "joint": 96},
)


class Classifier(nn.Module):
    """CLIP's image tower, and a vector for each of K names in place of the text tower."""

    def __init__(self, clip: CLIP, names: int) -> None:
        super().__init__()
        self.clip, self.names = clip, nn.Parameter(F.normalize(torch.randn(names, clip.config.joint)))

    def forward(self, image: Tensor) -> Tensor:
        """Scaled cosines of images with all names: (N, 3, 32, 32) → logits (N, K)."""
        return self.clip.log_scale.exp() * self.clip.encode_image(image) @ F.normalize(self.names, dim=1).T


@cache
def drawings() -> dict[str, Any]:
    """Of all drawings of these groups images, names, hands, and which are held out, one pair of thing and hand in five.

    Things that the shipped weights never saw are left out.
    """
    both = [_of_groups(emoji.load(split)) for split in ("train", "pairs")]
    names, things = ([row for part in both for row in part[column]] for column in ("caption", "thing"))
    hands = [emoji.HANDS[hand] for part in both for hand in part["hand"]]
    pairs = [f"{thing} {emoji.SIBLINGS.get(hand, hand)}" for thing, hand in zip(things, hands, strict=True)]
    held_out = torch.tensor([splits.held_out(pair, one_in=5) for pair in pairs])
    images = torch.cat([data.tensors(part)["image"] for part in both])
    return {"images": images, "names": names, "hands": hands, "held out": held_out}


def _of_groups(rows: Dataset) -> Dataset:
    wanted = {rows.features["group"].str2int(group) for group in GROUPS}
    return rows.select([k for k, group in enumerate(rows["group"]) if group in wanted])


@cache
def parts(left_out: str) -> tuple[list[str], dict[str, Batch]]:
    """The K names in training, and images and labels of each part.

    "train"; "known", held-out drawings by the hands in training; "new", all by the hand left out. Only of things that
    training shows.
    """
    found = drawings()
    away, held_out = torch.tensor([hand == left_out for hand in found["hands"]]), found["held out"]
    names = sorted({found["names"][k] for k in (~away & ~held_out).nonzero()[:, 0].tolist()})
    number = {name: k for k, name in enumerate(names)}
    labels = torch.tensor([number.get(name, -1) for name in found["names"]])
    chosen = {"train": ~away & ~held_out, "known": ~away & held_out, "new": away}
    rows = {part: (which & (labels >= 0)).nonzero()[:, 0] for part, which in chosen.items()}
    return names, {part: {"image": found["images"][k], "label": labels[k]} for part, k in rows.items()}


def built(model: str, names: list[str], seed: int) -> tuple[nn.Module, Any]:
    """A model and its loss."""
    torch.manual_seed(seed)
    clip = CLIP(CONFIG)
    tokens, end = (part.to(experiments.DEVICE) for part in task.prompts(names))
    if model == "classifier":
        return Classifier(clip, len(names)), lambda net, batch, context: F.cross_entropy(
            net(_moved(batch, context)), batch["label"]
        )

    def loss(net: nn.Module, batch: Batch, context: Context) -> Tensor:
        labels = batch["label"]
        return contrastive_loss(net(_moved(batch, context), tokens[labels], end[labels]))

    return clip, loss


def _moved(batch: Batch, context: Context) -> Tensor:
    return task.moved(batch["image"], context.generator)


def towers(net: nn.Module, names: list[str]) -> tuple[CLIP, Tensor]:
    """The image tower, and the unit vectors of all names, (K, J)."""
    if isinstance(net, Classifier):
        return net.clip, F.normalize(net.names, dim=1)
    return net, net.encode_text(*task.prompts(names))


@torch.no_grad()
def judged(net: nn.Module, left_out: str) -> dict[str, float | int]:
    """Of each part how many drawings get their name, as the first and among five, of all K names.

    Also how many have a training drawing of their thing as the nearest by the image tower, whatever the names.
    """
    names, found = parts(left_out)
    clip, vectors = towers(net, names)
    train = task.embedded(clip, found["train"]["image"])
    row: dict[str, float | int] = {"names": len(names), "train": len(train)}
    for part, batch in found.items():
        if part != "train":
            u, labels = task.embedded(clip, batch["image"]), batch["label"]
            right = (u @ vectors.T).topk(5).indices == labels[:, None]
            near = found["train"]["label"][(u @ train.T).argmax(dim=1)] == labels
            values = {"at 1": right[:, 0], "at 5": right.any(dim=1), "nearest": near}
            row |= {f"{part}, {name}": round(value.double().mean().item(), 4) for name, value in values.items()}
            row[part] = len(u)
    return row


def hands() -> None:
    """Every training, measured after each of STEPS; the rates are tried first."""
    for model in MODELS:
        for rate in RATES:
            measure(HANDS[0], SEEDS[0], model, rate, STEPS[: STEPS.index(TRIED) + 1])
    for left_out in HANDS:
        for seed in SEEDS:
            for model in MODELS:
                measure(left_out, seed, model, chosen(model), STEPS)


def chosen(model: str) -> float:
    """The rate at which most held-out drawings by the five hands got their name, after TRIED steps."""
    run = {"left out": HANDS[0], "seed": SEEDS[0], "model": model, "steps": TRIED}
    tried = [row for row in experiments.rows(NAME) if run.items() <= row.items()]
    return max(tried, key=lambda row: row["known, at 1"])["rate"]


def measure(left_out: str, seed: int, model: str, rate: float, wanted: tuple[int, ...]) -> None:
    """Train a model as far as it goes, and store what was not stored yet."""
    names, found = parts(left_out)
    path = experiments.RUNS / f"{NAME}-{left_out}-{model}-{rate}-{seed}.safetensors"
    net, loss = built(model, names, seed)
    net.to(experiments.DEVICE)
    for steps in wanted:
        key = {"left out": left_out, "model": model, "rate": rate, "seed": seed, "steps": steps}
        if experiments.stored(NAME, key):
            continue
        training = TrainConfig(
            **{"steps": steps, "batch_size": 128, "learning_rate": rate, "warmup_steps": 150, "seed": seed},
            **{"decay": "inverse_sqrt", "weight_decay": 0.1, "ema_decay": 0.99, "grad_clip": 1.0},
        )
        ema = train(net, loss, found["train"], training, path=path, save_every=200, after_step=clamped).ema
        experiments.store(NAME, key | judged(ema.cpu(), left_out) | experiments.machine())


def clamped(net: nn.Module) -> None:
    """Clamp the scale of the logits of either model."""
    (net.clip if isinstance(net, Classifier) else net).clamp_scale()


EXPERIMENTS = {NAME: hands}
