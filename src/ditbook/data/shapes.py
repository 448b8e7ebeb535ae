"""The shapes world: images of one to three things, rendered from a seed, and exactly what each image shows.

An image is rendered from a `scene.Layout`, whose caption is true by construction. The same seed gives the same rows on
every machine. Letters: `N` layouts, `H W` height and width of an image in pixels, `M` = 3 things of a layout at most.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ditbook.data import splits, to_float
from ditbook.data.captions import english
from ditbook.data.drawing import render
from ditbook.data.scene import (
    COLOURS,
    GAP,
    MAX_PLACED,
    RADII,
    RELATIONS,
    SHAPES,
    SIDE,
    SIZES,
    Layout,
    Scene,
    Thing,
    holds,
)

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

CLEAR = 3  # pixels: how much farther apart two neighbours are along the axis of their relation than along the other
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)  # the classes, in the order of their numbers
NEW_PAIRS = tuple(zip(COLOURS, SHAPES[3:] + SHAPES[:3], strict=True))  # never in training: each word once
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in NEW_PAIRS)
SPLITS = ("train", "validation", "compositional")


def sample(
    count: int,
    generator: torch.Generator,
    *,
    things: int | None = None,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> list[Layout]:
    """Sample layouts: every thing equally likely, wherever it fits.

    Args:
        count: how many layouts.
        generator: where the random numbers come from, on the CPU.
        things: how many in each layout; by default one to three, equally likely.
        pairs: the colours and shapes that may go together.

    Raises:
        ValueError: fewer than one thing or more than three.
    """
    if things is not None and not 1 <= things <= MAX_PLACED:
        raise ValueError(f"a layout has 1 to {MAX_PLACED} things, not {things}")
    number = np.full(count, things)  # (N,)
    if things is None:
        number = (1 + _uniform(generator, count) * MAX_PLACED).astype(int)  # (N,)
    choices = np.array([len(SIZES), len(pairs)])[:, None, None]
    size, pair = (_uniform(generator, 2, count, MAX_PLACED) * choices).astype(int)  # (N, M) each
    places = _places(np.array([RADII[name] for name in SIZES])[size], number, generator)  # (N, M, 2)
    kinds = [[Thing(name, *chosen) for chosen in pairs] for name in SIZES]
    layouts = []
    for n, sizes, chosen, where in zip(number, size.tolist(), pair.tolist(), places.tolist(), strict=True):
        at = tuple((x, y) for x, y in where[:n])
        row = tuple(kinds[s][p] for s, p in zip(sizes[:n], chosen[:n], strict=True))
        between = tuple(word for ends in pairwise(at) for word in RELATIONS if holds(word, *ends))
        layouts.append(Layout(Scene(row, between), at))
    return layouts


def _uniform(generator: torch.Generator, *shape: int) -> NDArray[np.float64]:
    """Numbers uniform in [0, 1)."""
    import torch

    return torch.rand(shape, generator=generator, dtype=torch.float64).numpy()


def _places(radius: NDArray[np.int_], number: NDArray[np.int_], generator: torch.Generator) -> NDArray[np.int_]:
    """Places for things of these radii, (N, M) → (N, M, 2): each row is sampled until its first `number` things fit."""
    places = np.zeros((*radius.shape, 2), dtype=int)
    missing = np.arange(len(radius))
    while len(missing):
        low = radius[missing, :, None]  # to SIDE − radius, both included
        places[missing] = low + (_uniform(generator, len(missing), MAX_PLACED, 2) * (SIDE - 2 * low + 1)).astype(int)
        missing = missing[~_fits(places[missing], radius[missing], number[missing])]
    return places


def _fits(places: NDArray[np.int_], radius: NDArray[np.int_], number: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Which rows are far enough apart, and neighbours clearly along one axis: (N, M, 2), (N, M), (N,) → (N,)."""
    good = np.ones(len(places), dtype=bool)
    for one, other in combinations(range(MAX_PLACED), 2):
        apart = np.abs(places[:, one] - places[:, other])  # (N, 2)
        fine = apart.max(axis=1) >= radius[:, one] + radius[:, other] + GAP
        if other == one + 1:
            fine &= np.abs(apart[:, 0] - apart[:, 1]) >= CLEAR
        good &= fine | (other >= number)
    return good


def held_out(layout: Layout) -> bool:
    """Whether a layout is kept from training: one in ten is."""
    return splits.held_out(layout.to_json(), one_in=10)


def tensors(layouts: Sequence[Layout], side: int = SIDE) -> torch.Tensor:
    """Render layouts as a model takes them: float32 in [−1, 1], (N, 3, H, W).

    Args:
        layouts: N layouts.
        side: H and W, a multiple of 32.

    Raises:
        ValueError: the side is not a multiple of 32.
    """
    return to_float(render(layouts, side))


def labels(layouts: Sequence[Layout]) -> torch.Tensor:
    """The classes of layouts of one thing each, indices into `PAIRS`: int64 (N,).

    Raises:
        ValueError: a layout of more than one thing.
    """
    import torch

    for n, layout in enumerate(layouts):
        if len(layout.places) != 1:
            raise ValueError(f"layout {n} has {len(layout.places)} things; only a layout of one thing has a class")
    return torch.tensor([PAIRS.index((it.colour, it.shape)) for layout in layouts for it in layout.scene.things])


def load(
    split: str = "train", size: int = 10_000, seed: int = 0, *, things: int | None = None, side: int = SIDE
) -> Dataset:
    """Sample, render and describe layouts of one split.

    "train" and "validation" have things of `SEEN_PAIRS` only and share no layout. In "compositional" every thing is of
    `NEW_PAIRS`: each of its colours and shapes is in training, but never the two in one thing.

    Args:
        split: one of the three.
        size: number of rows. A layout can occur more than once: of single things there are about 54,000 layouts.
        seed: other seeds give other rows of the same split.
        things: in each image; by default one to three, equally likely. With one, the rows are labelled.
        side: of the images in pixels, a multiple of 32.

    Returns:
        A dataset with the columns `image` (PIL, mode RGB), `caption` (English), `scene` (JSON, read by
        `Layout.from_json`), and with one thing also `label` (`ClassLabel`, the 64 `PAIRS`, "red circle" first).

    Raises:
        ValueError: an unknown split, or a number of rows, things or pixels out of range.
    """
    splits.check_split(split, SPLITS, "the shapes")
    if size < 1:
        raise ValueError(f"the size must be positive, not {size}")
    import torch
    from datasets import ClassLabel, Dataset, Features, Image, Value

    generator, layouts = torch.Generator().manual_seed(seed), list[Layout]()
    pairs = NEW_PAIRS if split == "compositional" else SEEN_PAIRS
    while len(layouts) < size:
        found = sample(size, generator, things=things, pairs=pairs)
        layouts += [layout for layout in found if held_out(layout) == (split != "train")]
    layouts = layouts[:size]
    columns: dict[str, list] = {
        "image": [{"bytes": _png(pixels), "path": None} for pixels in render(layouts, side)],
        "caption": [english(layout.scene) for layout in layouts],
        "scene": [layout.to_json() for layout in layouts],
    }
    features = {"image": Image(), "caption": Value("string"), "scene": Value("string")}
    if things == 1:
        columns["label"] = labels(layouts).tolist()
        features["label"] = ClassLabel(names=[" ".join(pair) for pair in PAIRS])
    return Dataset.from_dict(columns, features=Features(features))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """An image as a file: fast to write, and small enough."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
