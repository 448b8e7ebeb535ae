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
from ditbook.data.scene import COLOURS, RELATIONS, SHAPES, SIDE, Layout, holds
from ditbook.training.tasks import unclip


def probe() -> None:
    """What a small network that has learned to read CLIP's vectors of images reads from those of each source."""
    layouts, batch = training_set()
    two = [k for k, it in enumerate(layouts) if len(it.places) == 2]
    x, y = batch["image"][two], targets([layouts[k] for k in two])
    held_out = [it for it in unclip.sample_layouts(20_000, seed=1, held_out=True) if len(it.places) == 2]
    new, wanted = unclip.embedded(held_out, weights.load("clip-shapes")), targets(held_out)
    apart = wanted[:, :16].sum(dim=1) == 4  # two colors and two shapes
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
                    if source == "image":  # both pairs in the scenes of the kind that the decoder is asked for
                        row["apart"] = probe_accuracy(net(8 * vectors[apart]), wanted[apart])["pairs"]
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
    """Whether a small network can read the quarter of the picture in which a single thing stands from CLIP's vector.

    The things stand anywhere, as in CLIP's own training: at the decoder's eight places a held-out scene would have a
    thing where training never saw it. Also how often the commonest quarter is right.
    """
    layouts = shapes.sample(20_000, torch.Generator().manual_seed(5), things=1, pairs=shapes.SEEN_PAIRS)
    x, y = unclip.embedded(layouts, weights.load("clip-shapes"))["image"], quarters(layouts)
    new = torch.tensor([shapes.held_out(it) for it in layouts])
    for seed in SEEDS:
        key = {"seed": seed, "scenes": int(new.sum())}
        if not experiments.stored("unclip-places", key):
            net = trained_probe(x[~new], y[~new], seed, 4, F.cross_entropy)
            with torch.no_grad():
                right = (net(8 * x[new]).argmax(dim=1) == y[new]).double().mean().item()
            commonest = (y[new] == y[~new].mode().values).double().mean().item()
            row = key | {"place": round(right, 4), "commonest": round(commonest, 4)}
            experiments.store("unclip-places", row | experiments.machine())


def quarters(layouts: list[Layout]) -> Tensor:
    """The quarters of the picture in which single things stand: 0 or 1 above, 2 or 3 below; 1 and 3 are right."""
    at = torch.tensor([it.places[0] for it in layouts]) >= SIDE // 2  # (N, 2)
    return at[:, 0] + 2 * at[:, 1]


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
