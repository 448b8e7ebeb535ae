"""The emoji: CLIP of drawings and their names, and an autoencoder of the drawings."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ditbook import data
from ditbook.data import emoji, tokenizer
from ditbook.data.tokenizer import WordTokenizer
from ditbook.metrics import retrieval
from ditbook.models.autoencoder import Autoencoder, latent_scale
from ditbook.models.clip import CLIP
from ditbook.objectives.autoencoding import autoencoder_loss
from ditbook.objectives.contrastive import contrastive_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class MatchEmoji(Task[CLIP]):
    """Find the name of each drawing of a batch, and the drawing of each name; half of the names say the hand too."""

    def data(self) -> Batch:
        """Drawings with their names alone, then the same drawings with name and hand."""
        rows = drawings("train")
        tokens, end = prompts([*rows["name"], *rows["text"]])
        return {"image": rows["image"].repeat(2, 1, 1, 1), "tokens": tokens, "end": end}

    def loss(self, model: CLIP, batch: Batch, context: Context) -> Tensor:
        """The symmetric contrastive loss."""
        return contrastive_loss(model(data.to_float(batch["image"]), batch["tokens"], batch["end"]))

    def after_step(self, model: CLIP) -> None:
        """Clamp the scale of the logits."""
        model.clamp_scale()

    @torch.no_grad()
    def evaluate(self, model: CLIP) -> dict[str, float]:
        """Retrieval of name and hand on drawings that are held out, of known things and of new ones."""
        metric: dict[str, float] = {}
        for split in ("pairs", "things"):
            rows = drawings(split)
            logits = model(data.to_float(rows["image"]), *prompts(rows["text"]))
            recall = {k: round(retrieval.recall_at(logits, k), 4) for k in (1, 5)}
            metric |= {f"recall at {k} of {len(logits)} held-out drawings, {split}": recall[k] for k in (1, 5)}
        return metric


@dataclass(frozen=True, kw_only=True)
class ReconstructEmoji(Task[Autoencoder]):
    """Encode drawings as small latents and decode them."""

    kl_weight: float

    def data(self) -> Batch:
        """All drawings of the train split."""
        return {"image": drawings("train")["image"]}

    def loss(self, model: Autoencoder, batch: Batch, context: Context) -> Tensor:
        """Absolute error and a little divergence."""
        return autoencoder_loss(model, data.to_float(batch["image"]), context.generator, self.kl_weight)

    @torch.no_grad()
    def evaluate(self, model: Autoencoder) -> dict[str, float]:
        """Error on drawings that are held out, and the scale of the latents."""
        x = data.to_float(drawings("pairs")["image"])
        mean, std = model.encode(x)
        error = model.decode(mean) - x
        return {
            "mean absolute error on held-out drawings": round(error.abs().mean().item(), 4),
            "peak signal-to-noise ratio in dB": round((10 * (4 / error.square().mean()).log10()).item(), 2),
            "scale": round(latent_scale(mean, std), 4),
        }


@cache
def drawings(split: str) -> dict:
    """The drawings of a split as bytes (N, 32, 32, 3), "image"; "name"; and "text", name and hand: lists of N."""
    dataset = emoji.load(split)
    hands = [emoji.HANDS[hand] for hand in dataset["hand"]]
    image = ((data.tensors(dataset)["image"] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    names = list(dataset["caption"])
    return {"image": image, "name": names, "text": [said(name, hand) for name, hand in zip(names, hands, strict=True)]}


def said(name: str, hand: str) -> str:
    """The text for a drawing: "red apple by noto"."""
    return f"{name} by {hand}"


@cache
def words() -> WordTokenizer:
    """The tokenizer of names and hands: always the same. Every word has a space before it, also the first."""
    names = [name for split in emoji.SPLITS for name in emoji.load(split)["caption"]]
    return WordTokenizer.train(f" {said(name, hand)}" for name in names for hand in emoji.HANDS)


def prompts(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Texts as CLIP takes them: tokens (B, T) with begin and end, and the position of the end, (B,)."""
    rows = [words().encode(f" {text}") for text in texts]
    tokens = tokenizer.batch(rows, bos=True, eos=True)
    return tokens, (tokens == tokenizer.EOS).int().argmax(dim=1)
