"""What a small network reads in CLIP's vectors, and in those of each source that chapter 14 guesses them from.

Letters: `N` scenes, `J` width of CLIP's space.
"""

from collections.abc import Callable

import experiments
import torch
import torch.nn.functional as F
from experiments_unclip import SEEDS, SOURCES, training_set, vectors_from
from torch import Tensor, nn

from ditbook import weights
from ditbook.data import shapes
from ditbook.data.scene import COLOURS, RELATIONS, SHAPES, Layout, holds
from ditbook.training.tasks import unclip


def probe() -> None:
    """What a small network that has learned to read CLIP's vectors of images reads from those of each source."""
    layouts, batch = training_set()
    two = [k for k, it in enumerate(layouts) if len(it.places) == 2]
    x, y = batch["image"][two], targets([layouts[k] for k in two])
    held_out = [it for it in unclip.sample_layouts(20_000, seed=1, held_out=True) if len(it.places) == 2]
    new, wanted = unclip.embedded(held_out, weights.load("clip-shapes")), targets(held_out)
    for seed in SEEDS:
        keys = {source: {"seed": seed, "source": source, "scenes": len(held_out)} for source in SOURCES}
        if all(experiments.stored("unclip-probe", key) for key in keys.values()):
            continue
        net = trained_probe(x, y, seed, 84, probe_loss)
        for source, key in keys.items():
            if not experiments.stored("unclip-probe", key):
                vectors = vectors_from(source, new, torch.Generator().manual_seed(seed))
                with torch.no_grad():
                    row = key | probe_accuracy(net(8 * vectors), wanted)
                experiments.store("unclip-probe", row | experiments.machine())


def trained_probe(x: Tensor, y: Tensor, seed: int, outputs: int, loss: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """A network of two hidden layers, trained on vectors (N, 64) and what stands in their images (N, …)."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, outputs))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    for step in range(3000):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / 3000)
        rows = torch.randint(len(x), (256,), generator=generator)
        error = loss(net(8 * x[rows]), y[rows])
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return net


def places() -> None:
    """Whether a small network can read the place of a single thing, one of eight, from CLIP's vector of the image."""
    layouts, batch = training_set()
    one = [k for k, it in enumerate(layouts) if len(it.places) == 1]
    held_out = [it for it in unclip.sample_layouts(20_000, seed=1, held_out=True) if len(it.places) == 1]
    new = unclip.embedded(held_out, weights.load("clip-shapes"))["image"]
    y, wanted = (
        torch.tensor([unclip.PLACES.index(it.places[0]) for it in rows])
        for rows in ([layouts[k] for k in one], held_out)
    )
    for seed in SEEDS:
        key = {"seed": seed, "scenes": len(held_out)}
        if not experiments.stored("unclip-places", key):
            net = trained_probe(batch["image"][one], y, seed, len(unclip.PLACES), F.cross_entropy)
            with torch.no_grad():
                right = (net(8 * new).argmax(dim=1) == wanted).double().mean().item()
            experiments.store("unclip-places", key | {"place": round(right, 4)} | experiments.machine())


def targets(layouts: list[Layout]) -> Tensor:
    """Colors (8), shapes (8) and pairs (64) that are there, and the relation of the first, (N, 81).

    Things are ordered by the number of their class, so the relation is that of the one with the lower number.
    """
    result = torch.zeros(len(layouts), 81)
    for n, layout in enumerate(layouts):
        things = sorted(
            (shapes.PAIRS.index((it.colour, it.shape)), place)
            for it, place in zip(layout.scene.things, layout.places, strict=True)
        )
        for pair, _ in things:
            colour, shape = shapes.PAIRS[pair]
            result[n, [COLOURS.index(colour), 8 + SHAPES.index(shape), 16 + pair]] = 1
        (_, one), (_, other) = things
        result[n, 80] = next(k for k, word in enumerate(RELATIONS) if holds(word, one, other))
    return result


def probe_loss(logits: Tensor, y: Tensor) -> Tensor:
    there = F.binary_cross_entropy_with_logits(logits[:, :80], y[:, :80], reduction="none").sum(dim=1).mean()
    return there + F.cross_entropy(logits[:, 80:], y[:, 80].long())


def probe_accuracy(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Fractions of scenes of which all of a kind is read rightly, and of which the pairs are preferred to swapped ones.

    The last is asked of the scenes whose colors, once swapped, also give two other pairs that training has seen.
    """
    right = (logits[:, :80] > 0) == (y[:, :80] > 0)
    parts = {"colours": right[:, :8], "shapes": right[:, 8:16], "pairs": right[:, 16:]}
    result = {name: round(part.all(dim=1).double().mean().item(), 4) for name, part in parts.items()}
    related = (logits[:, 80:].argmax(dim=1) == y[:, 80].long()).double().mean().item()
    preferred = []
    for row, pairs in zip(logits[:, 16:80], y[:, 16:80], strict=True):
        found = [shapes.PAIRS[k] for k in pairs.nonzero()[:, 0].tolist()]
        swapped = [(found[-1][0], found[0][1]), (found[0][0], found[-1][1])]
        if set(swapped) <= set(shapes.SEEN_PAIRS) - set(found):
            preferred.append(bool(row @ pairs > row[[shapes.PAIRS.index(pair) for pair in swapped]].sum()))
    bound = round(sum(preferred) / len(preferred), 4) if preferred else 1.0
    return result | {"relation": round(related, 4), "swaps": len(preferred), "bound": bound}


EXPERIMENTS = {"unclip-probe": probe, "unclip-places": places}
