"""What chapter 14 says of the emoji: pictures from each source of vectors, compared with the drawing held out.

Letters: `N` held-out pairs, `M` training drawings, `J` width of CLIP's space.
"""

from functools import cache

import experiments
import torch
from torch import Tensor

from ditbook import data, pipeline, weights
from ditbook.data import emoji
from ditbook.layers.directions import unscaled
from ditbook.training.tasks import emoji as task
from ditbook.training.tasks import unclip

SEEDS = (0, 1, 2)
GUIDANCE = 2.5
DRAWINGS = ("autoencoder", "nearest by another hand", "same thing by another hand", "found")  # without noise
SOURCES = ("image", "text", "text + gap", "found, decoded")
SPLITS = ("train", "pairs")


@cache
def world() -> dict[str, dict[str, Tensor]]:
    """Of each split the images, their vectors (N, J) and latents (N, L), those of prompts, the hand and the thing."""
    clip, found = weights.load("clip-emoji"), {}
    number: dict[str, int] = {}
    for split in SPLITS:
        rows = emoji.load(split)
        x, hands = data.tensors(rows)["image"], [emoji.HANDS[hand] for hand in rows["hand"]]
        tokens, end = (part.split(unclip.PART) for part in task.prompts(rows["caption"], hands))
        with torch.no_grad():
            text = torch.cat([clip.encode_text(*part) for part in zip(tokens, end, strict=True)])
        things = [number.setdefault(thing, len(number)) for thing in rows["thing"]]
        found[split] = {"images": x, "image": task.embedded(clip, x), "text": text, "latents": latents(x)}
        found[split] |= {"hand": torch.tensor(list(rows["hand"])), "thing": torch.tensor(things)}
    return found


@torch.no_grad()
def latents(x: Tensor) -> Tensor:
    """Means of the latents of images, in one row each: (N, 3, 32, 32) → (N, L)."""
    coder = weights.load("autoencoder-emoji")
    return torch.cat([coder.to_latents(part).flatten(1) for part in x.split(unclip.PART)])


def images(source: str, seed: int) -> Tensor:
    """One picture for each held-out pair, (N, 3, 32, 32)."""
    train, pairs = (world()[split] for split in SPLITS)
    other = pairs["hand"][:, None] != train["hand"]
    if source == "autoencoder":
        with torch.no_grad():
            coder = weights.load("autoencoder-emoji")
            return coder.from_latents(coder.to_latents(pairs["images"])).clamp(-1, 1)
    if "by another hand" in source:
        if source.startswith("same thing"):
            other &= pairs["thing"][:, None] == train["thing"]
        return train["images"][(pairs["image"] @ train["image"].T).masked_fill(~other, -2).argmax(dim=1)]
    found = (pairs["text"] @ train["image"].T).argmax(dim=1)
    if source == "found":
        return train["images"][found]
    gap = train["image"].mean(dim=0) - train["text"].mean(dim=0)
    vectors = {"image": pairs["image"], "text": pairs["text"], "text + gap": unscaled(pairs["text"] + gap)}
    return decoded(train["image"][found] if source == "found, decoded" else vectors[source], seed)


def decoded(vectors: Tensor, seed: int) -> Tensor:
    """Images of vectors (N, J) by the shipped decoder: (N, 3, 32, 32)."""
    model, coder = weights.load("unclip-emoji"), weights.load("autoencoder-emoji")
    process = pipeline.process(model, None, weights.metadata("unclip-emoji")["schedule"])
    generator = torch.Generator().manual_seed(seed)
    return unclip.decode(model, process, coder, vectors, generator, guidance=GUIDANCE)


def judged(x: Tensor) -> dict[str, float]:
    """Fractions of pictures to which the drawing held out is nearer than all training drawings of its hand.

    By CLIP's vectors and by latents, as nearest and among five; and of those whose nearest training drawing, by CLIP
    and of any hand, shows the same thing.
    """
    train, pairs = (world()[split] for split in SPLITS)
    allowed = pairs["hand"][:, None] == train["hand"]
    u, z = task.embedded(weights.load("clip-emoji"), x), latents(x)
    own = (z - pairs["latents"]).norm(dim=1, keepdim=True)
    ranks = {"CLIP": task.ranks(u, pairs["image"], train["image"], allowed)}
    ranks["latents"] = ((torch.cdist(z, train["latents"]) < own - 1e-4) & allowed).sum(dim=1)
    row = {f"{by} at {k}": (rank < k).double().mean().item() for by, rank in ranks.items() for k in (1, 5)}
    nearest = (u @ train["image"].T).argmax(dim=1)
    row["thing"] = (train["thing"][nearest] == pairs["thing"]).double().mean().item()
    return {name: round(value, 4) for name, value in row.items()}


def emoji_sources() -> None:
    """Every source once, those with noise with three draws of it."""
    for source in (*DRAWINGS, *SOURCES):
        for seed in SEEDS if source in SOURCES else SEEDS[:1]:
            key = {"source": source, "seed": seed, "pairs": len(world()["pairs"]["hand"])}
            if not experiments.stored("unclip-emoji", key):
                row = key | judged(images(source, seed))
                experiments.store("unclip-emoji", row | experiments.machine())


EXPERIMENTS = {"unclip-emoji": emoji_sources}
