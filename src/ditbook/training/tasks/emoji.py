"""Models of the emoji: an autoencoder of the drawings, CLIP of drawings and names, and a decoder of CLIP's vectors.

Letters: `B` batch, `N` drawings, `T` tokens, `J` width of CLIP's space.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from ditbook import data, pipeline, rng, weights
from ditbook.data import emoji, tokenizer
from ditbook.layers.checks import check_range
from ditbook.models.autoencoder import Autoencoder, latent_scale
from ditbook.models.clip import CLIP
from ditbook.models.unclip import UnCLIPDecoder
from ditbook.objectives.autoencoding import autoencoder_loss
from ditbook.objectives.contrastive import contrastive_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task
from ditbook.training.tasks.unclip import PART, DecodeImages, decode

LONGEST = 12  # tokens of a prompt, begin and end among them
UNNAMED = 0.5  # fraction of the prompts in training that do not say the hand
TURN, ZOOM, SHIFT = math.radians(10), 0.15, 0.125  # the largest changes of a drawing; half its side is 1


def images(split: str) -> Tensor:
    """The drawings of a split, (N, 3, 32, 32) in [−1, 1]."""
    return data.tensors(emoji.load(split))["image"]


@dataclass(frozen=True, kw_only=True)
class ReconstructEmoji(Task[Autoencoder]):
    """Encode drawings as small latents and decode them."""

    kl_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "kl_weight")

    def data(self) -> Batch:
        """The drawings of the train split."""
        return {"image": images("train")}

    def loss(self, model: Autoencoder, batch: Batch, context: Context) -> Tensor:
        """Absolute error and a little divergence."""
        return autoencoder_loss(model, batch["image"], context.generator, self.kl_weight)

    @torch.no_grad()
    def evaluate(self, model: Autoencoder) -> dict[str, float]:
        """Errors on drawings of held-out things, and the scale of the latents of those of the train split."""
        x = images("things")
        decoded = model.from_latents(model.to_latents(x)).clamp(-1, 1)
        parts = images("train").split(PART)
        mean, std = (torch.cat(part) for part in zip(*map(model.encode, parts), strict=True))
        return {
            "mean absolute error on held-out things": round((decoded - x).abs().mean().item(), 4),
            "PSNR on held-out things": round(psnr(decoded, x), 2),
            "scale": round(latent_scale(mean, std), 4),
        }


@dataclass(frozen=True, kw_only=True)
class MatchNames(Task[CLIP]):
    """Find the name of each drawing of a batch, and the drawing of each name; half of the prompts say the hand too."""

    splits = False  # each drawing is compared with the names of the whole batch

    def data(self) -> Batch:
        """Drawings of the train split; prompts with the hand and without it, (N, 2, T), and where they end, (N, 2)."""
        dataset = emoji.load("train")
        pairs = (prompts(dataset["caption"], hands) for hands in (None, _hands(dataset)))
        tokens, end = (torch.stack(kinds, dim=1) for kinds in zip(*pairs, strict=True))
        return {"image": data.tensors(dataset)["image"], "tokens": tokens, "end": end}

    def loss(self, model: CLIP, batch: Batch, context: Context) -> Tensor:
        """The symmetric contrastive loss of drawings that are moved a little."""
        x, generator = batch["image"], context.generator
        rows = torch.arange(len(x), device=x.device)
        kind = (rng.rand((len(x),), generator, x.device) >= UNNAMED).long()
        tokens, end = batch["tokens"][rows, kind], batch["end"][rows, kind]
        return contrastive_loss(model(moved(x, generator), tokens, end))

    def after_step(self, model: CLIP) -> None:
        """Clamp the scale of the logits."""
        model.clamp_scale()

    @torch.no_grad()
    def evaluate(self, model: CLIP) -> dict[str, float]:
        """How often a prompt with the hand finds its drawing among all drawings of that hand, at 1 and at 5.

        Of held-out pairs, and of held-out things whose words all occur in the names of others.
        """
        datasets = {split: emoji.load(split) for split in emoji.SPLITS}
        vectors = {split: embedded(model, data.tensors(part)["image"]) for split, part in datasets.items()}
        hands = {split: torch.tensor(list(part["hand"])) for split, part in datasets.items()}
        candidates, hand_of = torch.cat([*vectors.values()]), torch.cat([*hands.values()])
        known = set(prompts(datasets["train"]["caption"])[0].unique().tolist())
        metric: dict[str, float] = {}
        for split in ("pairs", "things"):
            names = datasets[split]["caption"]
            text = model.encode_text(*prompts(names, _hands(datasets[split])))
            rank = ranks(text, vectors[split], candidates, hands[split][:, None] == hand_of)
            rank = rank[[known.issuperset(row) for row in prompts(names)[0].tolist()]]
            metric |= recalls(rank, f"of {len(rank)} held-out {split}")
        return metric


@dataclass(frozen=True, kw_only=True)
class DecodeEmoji(DecodeImages):
    """Denoise latents of drawings, given CLIP's vectors of the drawings."""

    def images(self) -> Tensor:
        """The drawings of the train split."""
        return images("train")

    @torch.no_grad()
    def evaluate(self, model: UnCLIPDecoder) -> dict[str, float]:
        """Whether what is decoded from the vectors of held-out pairs is most similar to the pair's own drawing.

        It is compared with that and all training drawings of the hand, by CLIP.
        """
        judge: CLIP = weights.load(self.clip)
        train, pairs = (emoji.load(split) for split in ("train", "pairs"))
        vectors, process = embedded(judge, images("pairs")), pipeline.process(model, None, self.schedule)
        decoded = decode(model, process, self.autoencoder, vectors, torch.Generator().manual_seed(2))
        found = embedded(judge, decoded)
        allowed = torch.tensor(list(pairs["hand"]))[:, None] == torch.tensor(list(train["hand"]))
        rank = ranks(found, vectors, embedded(judge, images("train")), allowed)
        metric = {"similarity to held-out pairs": round((found * vectors).sum(dim=1).mean().item(), 4)}
        return metric | recalls(rank, f"of {len(rank)} held-out pairs")


def prompts(names: Sequence[str], hands: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Names, with hands or without, as CLIP takes them: tokens (B, 12) and the position of the end, (B,)."""
    words = emoji.tokenizer()
    texts = map(emoji.prompt, names, [None] * len(names) if hands is None else hands)
    tokens = tokenizer.batch([words.encode(text) for text in texts], bos=True, eos=True)
    end = (tokens == tokenizer.EOS).int().argmax(dim=1)
    return F.pad(tokens, (0, LONGEST - tokens.shape[1]), value=tokenizer.PAD), end


@torch.no_grad()
def embedded(model: CLIP, x: Tensor) -> Tensor:
    """CLIP's vectors of any number of images: (N, 3, 32, 32) → (N, J)."""
    return torch.cat([model.encode_image(part) for part in x.split(PART)])


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each turned, zoomed and shifted a little at random; never flipped."""
    turn, zoom, *shift = (2 * rng.rand((4, len(x)), generator, x.device) - 1).unbind()
    size = 1 + ZOOM * zoom
    cos, sin = size * (TURN * turn).cos(), size * (TURN * turn).sin()
    across, down = (SHIFT * part for part in shift)
    matrix = torch.stack([cos, -sin, across, sin, cos, down], dim=1).unflatten(1, (2, 3))  # (B, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def ranks(queries: Tensor, own: Tensor, candidates: Tensor, allowed: Tensor) -> Tensor:
    """How many allowed candidates are more similar to each query than its own: (N, J), (N, J), (M, J), (N, M) → (N,).

    Its own may be among the candidates or not.
    """
    mine = (queries * own).sum(dim=1, keepdim=True)
    return ((queries @ candidates.T > mine + 1e-6) & allowed).sum(dim=1)  # (19.12)


def recalls(rank: Tensor, what: str) -> dict[str, float]:
    """Fractions of rows whose own column is the most similar, or among five."""
    return {f"recall at {k} {what}": round((rank < k).double().mean().item(), 4) for k in (1, 5)}


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels of images in [−1, 1], from the mean squared error of all of them."""
    return 10 * math.log10(4 / (found - wanted).square().mean().item())


def _hands(dataset: Dataset) -> list[str]:
    return [dataset.features["hand"].int2str(hand) for hand in dataset["hand"]]
