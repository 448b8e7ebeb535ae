"""CLIP of the shapes world: images and their captions in one space."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook import data
from ditbook.data import captions, shapes, tokenizer
from ditbook.data.drawing import render
from ditbook.data.scene import SIZES
from ditbook.layers.checks import check_positive
from ditbook.metrics import retrieval
from ditbook.models.clip import CLIP, class_vectors
from ditbook.objectives.contrastive import contrastive_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class MatchCaptions(Task[CLIP]):
    """Find the caption of each image of a batch, and the image of each caption. Some pairs of words never occur."""

    splits = False  # each image is compared with the captions of the whole batch
    layouts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")

    def data(self) -> Batch:
        """Images and captions of layouts of seen pairs that are not held out."""
        layouts = shapes.sample(self.layouts, torch.Generator().manual_seed(0), pairs=shapes.SEEN_PAIRS)
        layouts = [layout for layout in layouts if not shapes.held_out(layout)]
        tokens, end = prompts([captions.english(layout.scene) for layout in layouts])
        return {"image": torch.from_numpy(render(layouts)), "tokens": tokens, "end": end}

    def loss(self, model: CLIP, batch: Batch, context: Context) -> Tensor:
        """The symmetric contrastive loss."""
        return contrastive_loss(model(data.to_float(batch["image"]), batch["tokens"], batch["end"]))

    def after_step(self, model: CLIP) -> None:
        """Clamp the scale of the logits."""
        model.clamp_scale()

    def evaluate(self, model: CLIP) -> dict[str, float]:
        """Zero-shot accuracy on seen and new pairs, and retrieval of captions of three things."""
        metric = {}
        for split in ("validation", "compositional"):
            rows = data.tensors(shapes.load(split, 2000, seed=1, things=1))
            similarity = model.encode_image(rows["image"]) @ pair_vectors(model).T
            right = (similarity.argmax(dim=1) == rows["label"]).double().mean().item()
            metric[f"zero-shot accuracy of 64 classes, {split}"] = round(right, 4)
        dataset = shapes.load("validation", 500, seed=1, things=3)
        logits = model(data.tensors(dataset)["image"], *prompts(dataset["caption"]))
        return metric | {"recall at 1 of 500 images of three things": round(retrieval.recall_at(logits, 1), 4)}


def prompts(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Captions as CLIP takes them: tokens (B, T) with begin and end, and the position of the end, (B,)."""
    words = captions.tokenizer("english")
    tokens = tokenizer.batch([words.encode(text) for text in texts], bos=True, eos=True)
    return tokens, (tokens == tokenizer.EOS).int().argmax(dim=1)


def pair_vectors(model: CLIP) -> Tensor:
    """A vector for each pair of color and shape, the mean of the small and the large one: (64, J)."""
    tokens, end = prompts([f"a {size} {colour} {shape}" for colour, shape in shapes.PAIRS for size in SIZES])
    return class_vectors(model, tokens.unflatten(0, (64, 2)), end.unflatten(0, (64, 2)))
