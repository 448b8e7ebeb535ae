"""The parts of unCLIP: a decoder of CLIP's vectors of images, and two priors that make such vectors from captions.

Letters: `N` images, `J` width of CLIP's space, `T` tokens of a caption, `K` codes.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook import data, generation, pipeline, rng, weights
from ditbook.data import captions, shapes
from ditbook.data.drawing import render
from ditbook.data.scene import RELATIONS, SIZES, Layout, Scene, Thing, holds
from ditbook.diffusion import samplers
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.diffusion.losses import denoising_loss
from ditbook.diffusion.process import Process
from ditbook.layers.checks import check_positive, check_range
from ditbook.layers.directions import closest, scaled, unscaled
from ditbook.models.autoencoder import Autoencoder
from ditbook.models.clip import CLIP
from ditbook.models.dit import DiT
from ditbook.models.prior import AutoregressivePrior, DiffusionPrior
from ditbook.models.unclip import UnCLIPDecoder
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import M, Task
from ditbook.training.tasks.clip import prompts

PART = 500  # images that are encoded at once
# Eight places, those of a grid of 3×3 without its middle, so that a small decoder learns in minutes.
PLACES = tuple((x, y) for y in (8, 16, 24) for x in (8, 16, 24) if (x, y) != (16, 16))
# Where two things may stand: farther apart along one axis than along the other, and far enough for two large ones.
BESIDE = tuple(
    (one, other)
    for one in PLACES
    for other in PLACES
    if sorted((abs(one[0] - other[0]), abs(one[1] - other[1]))) in ([0, 16], [8, 16])
)


@dataclass(frozen=True, kw_only=True)
class DecodeImages(Task[UnCLIPDecoder]):
    """Denoise latents of images, given CLIP's vectors of the images."""

    clip: str  # weights of a CLIP
    latents_of: str  # weights of an autoencoder
    schedule: str = pipeline.STRAIGHT

    @abstractmethod
    def images(self) -> Tensor:
        """The images to train on, (N, 3, 32, 32) in [−1, 1]."""

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder whose latents are modeled."""
        return weights.load(self.latents_of)

    @torch.no_grad()
    def data(self) -> Batch:
        """Vectors, and means and standard deviations of latents."""
        model: CLIP = weights.load(self.clip)
        parts = self.images().split(PART)
        mean, std = (torch.cat(part) for part in zip(*map(self.autoencoder.encode, parts), strict=True))
        return {"embedding": torch.cat([model.encode_image(part) for part in parts]), "mean": mean, "std": std}

    def loss(self, model: UnCLIPDecoder, batch: Batch, context: Context) -> Tensor:
        """The denoising loss of latents that are sampled anew in each step."""
        x = self.autoencoder.scaled_latents(batch["mean"], batch["std"], context.generator)
        process, dropout = pipeline.process(model, None, self.schedule), model.config.dropout
        return denoising_loss(model, process, x, context.generator, dropout=dropout, embedding=batch["embedding"])


@dataclass(frozen=True, kw_only=True)
class DecodeVectors(DecodeImages):
    """The same for scenes of the shapes world."""

    layouts: int
    starts_from: str | None = None  # weights of a DiT on the same latents, with the same blocks

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")

    @torch.no_grad()
    def start(self, model: UnCLIPDecoder) -> None:
        """Take over what a DiT has learned without a class; what is made of the vector starts at zero."""
        if self.starts_from is None:
            return
        dit: DiT = weights.load(self.starts_from)
        model.load_state_dict(dit.state_dict(), strict=False)
        null = dit.label_embed.table.weight[dit.label_embed.null]
        nn.init.zeros_(model.vector.weight)
        model.vector.bias.copy_(null)

    def images(self) -> Tensor:
        """Scenes of layouts that are not held out."""
        return data.to_float(rendered(sample_layouts(self.layouts)))

    @torch.no_grad()
    def evaluate(self, model: UnCLIPDecoder) -> dict[str, float]:
        """Similarity, of CLIP's vectors, of held-out images and what is decoded; whether the same things are read."""
        x, judge = data.to_float(rendered(sample_layouts(4000, seed=1, held_out=True)[:300])), weights.load(self.clip)
        vectors = judge.encode_image(x)
        process = pipeline.process(model, None, self.schedule)
        decoded = decode(model, process, self.autoencoder, vectors, torch.Generator().manual_seed(2))
        similarity = (judge.encode_image(decoded) * vectors).sum(dim=1).mean().item()
        metric = {f"similarity to {len(x)} held-out images": round(similarity, 4)}
        reader = weights.load("scene-reader")
        same = [things(a) == things(b) for a, b in zip(reader.read(x), reader.read(decoded), strict=True)]
        return metric | {"fraction with the same things": round(sum(same) / len(same), 4)}


@dataclass(frozen=True, kw_only=True)
class _FromCaptions(Task[M]):
    """Captions of the shapes world and CLIP's vectors of both sides."""

    clip: str
    layouts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "layouts")

    def data(self) -> Batch:
        """Tokens of captions, vectors of captions and of images."""
        return embedded(sample_layouts(self.layouts), weights.load(self.clip))

    def held_out(self) -> Batch:
        """The same of 300 layouts that are kept from training."""
        return embedded(sample_layouts(4000, seed=1, held_out=True)[:300], weights.load(self.clip))


@dataclass(frozen=True, kw_only=True)
class GuessVectors(_FromCaptions[DiffusionPrior]):
    """Denoise CLIP's vectors of images, given their captions."""

    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "dropout", high=1)

    def loss(self, model: DiffusionPrior, batch: Batch, context: Context) -> Tensor:
        """Mean squared error of the predicted clean vector."""
        return prior_loss(model, batch, context.generator, self.dropout)

    def evaluate(self, model: DiffusionPrior) -> dict[str, float]:
        """Similarity of generated vectors to those of the images, and which image of 300 is most similar."""
        batch = self.held_out()
        found = generate_vectors(model, batch["tokens"], batch["text"], torch.Generator().manual_seed(2))
        return similarity(found, batch["image"])


@dataclass(frozen=True, kw_only=True)
class WriteVectors(_FromCaptions[AutoregressivePrior]):
    """Predict the codes of CLIP's vectors of images, given their captions."""

    def batches(self, model: AutoregressivePrior) -> Batch:
        """The data, after components and ranges are taken from it."""
        batch = self.data()
        model.fit(batch["image"], batch["text"])
        dots = model.dot_tokens((batch["image"] * batch["text"]).sum(dim=1))
        codes = model.components.encode(batch["image"])
        return {"tokens": batch["tokens"], "text": batch["text"], "codes": torch.cat([dots[:, None], codes], dim=1)}

    def loss(self, model: AutoregressivePrior, batch: Batch, context: Context) -> Tensor:
        """Cross-entropy of the codes in nats, mean over the codes."""
        logits = model(batch["tokens"], batch["text"], batch["codes"][:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch["codes"][:, 1:].flatten())

    def evaluate(self, model: AutoregressivePrior) -> dict[str, float]:
        """Similarity of generated vectors to those of the images, and which image of 300 is most similar."""
        batch = self.held_out()
        found = write_vectors(model, batch["tokens"], batch["text"], torch.Generator().manual_seed(2))
        return similarity(found, batch["image"])


def sample_layouts(count: int, seed: int = 0, held_out: bool = False) -> list[Layout]:
    """Layouts of one or two things of seen pairs at `PLACES`; of `count` those that are for training, or held out."""
    generator = torch.Generator().manual_seed(seed)
    kinds = [Thing(size, *pair) for size in SIZES for pair in shapes.SEEN_PAIRS]
    first, second = torch.randint(len(kinds), (2, count), generator=generator).tolist()
    where = torch.randint(len(BESIDE), (count,), generator=generator).tolist()
    layouts = []
    for n, (one, other) in enumerate(BESIDE[k] for k in where):
        if n % 2:
            layouts.append(Layout(Scene((kinds[first[n]],)), (one,)))
        else:
            between = next(word for word in RELATIONS if holds(word, one, other))
            layouts.append(Layout(Scene((kinds[first[n]], kinds[second[n]]), (between,)), (one, other)))
    return [layout for layout in layouts if shapes.held_out(layout) == held_out]


def rendered(layouts: list[Layout]) -> Tensor:
    """Images as bytes, (N, 32, 32, 3)."""
    return torch.from_numpy(render(layouts))


@torch.no_grad()
def embedded(layouts: list[Layout], model: CLIP, texts: list[str] | None = None) -> Batch:
    """Tokens (N, T), vectors of captions, "text", and of images, "image", (N, J) each; `texts` may replace captions."""
    tokens, end = prompts([captions.english(it.scene) for it in layouts] if texts is None else texts)
    parts = zip(tokens.split(PART), end.split(PART), strict=True)
    text = torch.cat([model.encode_text(*part) for part in parts])
    image = torch.cat([model.encode_image(data.to_float(part)) for part in rendered(layouts).split(PART)])
    return {"tokens": tokens, "text": text, "image": image}


def prior_loss(model: DiffusionPrior, batch: Batch, generator: torch.Generator, dropout: float) -> Tensor:
    """Mean squared error of the predicted clean vector, scaled; the schedule is the cosine."""
    process = pipeline.process(model, "x_start", "cosine")
    x, tokens, text = scaled(batch["image"]), batch["tokens"], batch["text"]
    return denoising_loss(model, process, x, generator, dropout=dropout, tokens=tokens, text=text)  # (14.5)


@torch.no_grad()
def generate_vectors(
    model: DiffusionPrior,
    tokens: Tensor,
    text: Tensor,
    generator: torch.Generator,
    *,
    guidance: float = 1.0,
    steps: int = 25,
    candidates: int = 2,
) -> Tensor:
    """Unit vectors of images for captions, by the diffusion prior: of several candidates the closest to the caption.

    Args:
        tokens: captions, (N, T).
        text: CLIP's vectors of them, (N, J).
        generator: of the noise.
        guidance: scale of classifier-free guidance; 1 is none.
        steps: of ancestral sampling.
        candidates: for each caption.

    Returns:
        (N, J).
    """
    process = pipeline.process(model, "x_start", "cosine").respace(steps)
    guided = model if guidance == 1 else ClassifierFreeGuidance(model, guidance)
    found = []
    for _ in range(candidates):
        noise = rng.randn(text.shape, generator, like=text)
        x = samplers.sample(guided, noise, process, step=samplers.ddpm, generator=generator, tokens=tokens, text=text)
        found.append(unscaled(x))
    return closest(torch.stack(found), text)


@torch.no_grad()
def write_vectors(model: AutoregressivePrior, tokens: Tensor, text: Tensor, generator: torch.Generator) -> Tensor:
    """Unit vectors of images for captions, by the autoregressive prior, (N, J).

    The similarity's token is sampled from the upper half of those in training.
    """
    config = model.config
    upper = (config.dots + 1) // 2
    dots = config.values + upper + rng.randint(config.dots - upper, (len(tokens),), generator, tokens.device)
    state = model.start(tokens, text)
    codes = generation.sample(model.step, state, first=dots, max_length=config.components, generator=generator)
    return unscaled(model.components.decode(codes))


@torch.no_grad()
def decode(
    model: UnCLIPDecoder,
    diffusion: Process,
    autoencoder: Autoencoder,
    vectors: Tensor,
    generator: torch.Generator,
    *,
    guidance: float = 1.5,
    steps: int = 20,
) -> Tensor:
    """Images in [−1, 1] from unit vectors: (N, J) → (N, 3, 32, 32), by DDIM. Another generator gives other images."""
    config = model.config
    noise = rng.randn((len(vectors), config.channels, config.size, config.size), generator, like=vectors)
    guided = model if guidance == 1 else ClassifierFreeGuidance(model, guidance)
    x = samplers.sample(guided, noise, diffusion.respace(steps), embedding=vectors)
    return autoencoder.from_latents(x).clamp(-1, 1)


def things(seen: list) -> list:
    """What a reading says without places, in an order of its own."""
    return sorted(str(thing) for thing, _ in seen)


def similarity(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Mean cosine of vectors with those that they stand for, (N, J) each, and the fraction closest to their own."""
    table = found @ wanted.T
    right = (table.argmax(dim=1) == torch.arange(len(table))).double().mean().item()
    mean = round(table.diagonal().mean().item(), 4)
    return {"similarity to the image's vector": mean, f"fraction closest to their own of {len(table)}": round(right, 4)}
