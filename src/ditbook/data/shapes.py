"""The shapes world: pictures of one to three things, rendered from a seed, and exactly what each picture shows.

A layout is a scene of `data.captions` with a place for every thing. Its caption is true by construction: a layout whose
things overlap, leave the picture, or do not stand as the scene says, is refused. The same seed gives the same rows on
every machine.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ditbook.data.captions import COLOURS, SHAPES, SIZES, Scene, Thing, english
from ditbook.data.drawing import RADII, SIDE, Place, render

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

MOST = 3  # things of a layout
GAP = 1  # pixels between the squares that two things take up, at least
CLEAR = 3  # how much farther apart two neighbours are along the axis of their relation than along the other
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)  # the classes, in the order of their numbers
NEW_PAIRS = tuple(zip(COLOURS, SHAPES[3:] + SHAPES[:3], strict=True))  # never in training: each word once
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in NEW_PAIRS)
SPLITS = ("train", "validation", "compositional")
HELD_OUT = 10  # one layout in ten is kept from training


def relation(one: Place, other: Place) -> str:
    """How a thing at `one` stands to a thing at `other`: the axis along which they are farther apart decides.

    Raises:
        ValueError: they are as far apart along one axis as along the other.
    """
    x, y = one[0] - other[0], one[1] - other[1]
    if abs(x) == abs(y):
        raise ValueError(f"things at {one} and {other} stand diagonally: no relation describes them")
    if abs(x) > abs(y):
        return "left of" if x < 0 else "right of"
    return "above" if y < 0 else "below"


@dataclass(frozen=True)
class Layout:
    """A scene, and where the centre of each of its things is.

    Raises:
        ValueError: more than three things, not one place for each, a thing outside the picture, two that overlap, or a
            relation that the places do not show.
    """

    scene: Scene
    places: tuple[Place, ...]

    def __post_init__(self) -> None:
        things = self.scene.things
        if not len(self.places) == len(things) <= MOST:
            raise ValueError(f"{len(things)} things at {len(self.places)} places; expected as many, {MOST} at most")
        radii = [RADII[thing.size] for thing in things]
        for place, radius in zip(self.places, radii, strict=True):
            if not all(radius <= along <= SIDE - radius for along in place):
                raise ValueError(f"a thing at {place} leaves the picture: {radius} to {SIDE - radius} is inside")
        for (one, r), (other, s) in combinations(zip(self.places, radii, strict=True), 2):
            if max(abs(one[0] - other[0]), abs(one[1] - other[1])) < r + s + GAP:
                raise ValueError(f"things at {one} and {other} overlap: they must be {r + s + GAP} pixels apart")
        for said, (one, other) in zip(self.scene.relations, pairwise(self.places), strict=True):
            if said != relation(one, other):
                raise ValueError(f"a thing at {one} is {relation(one, other)} one at {other}, not {said}")

    def to_json(self) -> str:
        """The layout as JSON, always the same for the same layout; `Scene.from_json` reads its scene."""
        things = [{"colour": thing.colour, "shape": thing.shape, "size": thing.size} for thing in self.scene.things]
        return json.dumps({"places": self.places, "relations": self.scene.relations, "things": things})

    @staticmethod
    def from_json(text: str) -> Layout:
        """The layout that `to_json` wrote."""
        return Layout(Scene.from_json(text), tuple((x, y) for x, y in json.loads(text)["places"]))


def sample(
    count: int,
    generator: torch.Generator,
    *,
    things: int | None = None,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> list[Layout]:
    """Draw layouts: every thing equally likely, wherever it fits.

    Args:
        count: how many layouts.
        generator: where the random numbers come from.
        things: how many in each layout; by default one to three, equally likely.
        pairs: the colours and shapes that may go together.

    Raises:
        ValueError: fewer than one thing or more than three.
    """
    if things is not None and not 1 <= things <= MOST:
        raise ValueError(f"a layout has 1 to {MOST} things, not {things}")
    import torch

    def draw(*shape: int) -> NDArray[np.float64]:
        return torch.rand(shape, generator=generator, dtype=torch.float64).numpy()

    number = (1 + draw(count) * MOST).astype(int) if things is None else np.full(count, things)  # (N,)
    size, pair = (draw(2, count, MOST) * [[[len(SIZES)]], [[len(pairs)]]]).astype(int)  # (N, 3) each
    radius = np.array([RADII[name] for name in SIZES])[size]
    places = np.zeros((count, MOST, 2), dtype=int)
    missing = np.arange(count)
    while len(missing):
        room = SIDE - 2 * radius[missing, :, None] + 1  # whole numbers from the radius on
        places[missing] = radius[missing, :, None] + (draw(len(missing), MOST, 2) * room).astype(int)
        missing = missing[~_fits(places[missing], radius[missing], number[missing])]
    kinds = [[Thing(name, *chosen) for chosen in pairs] for name in SIZES]
    layouts = []
    for n, sizes, chosen, where in zip(number, size.tolist(), pair.tolist(), places.tolist(), strict=True):
        at = tuple((x, y) for x, y in where[:n])
        row = tuple(kinds[s][p] for s, p in zip(sizes[:n], chosen[:n], strict=True))
        layouts.append(Layout(Scene(row, tuple(relation(one, other) for one, other in pairwise(at))), at))
    return layouts


def _fits(places: NDArray[np.int_], radius: NDArray[np.int_], number: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Which rows of places are far enough apart, and neighbours clearly along one axis: (N, 3, 2), … → (N,)."""
    good = np.ones(len(places), dtype=bool)
    for one, other in combinations(range(MOST), 2):
        apart = np.abs(places[:, one] - places[:, other])  # (N, 2)
        fine = apart.max(axis=1) >= radius[:, one] + radius[:, other] + GAP
        if other == one + 1:
            fine &= np.abs(apart[:, 0] - apart[:, 1]) >= CLEAR
        good &= fine | (other >= number)
    return good


def held_out(layout: Layout) -> bool:
    """Whether a layout is kept from training: a hash of it decides, so that none is ever on both sides."""
    digest = hashlib.sha256(layout.to_json().encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0


def load(
    split: str = "train", size: int = 10_000, seed: int = 0, *, things: int | None = None, side: int = SIDE
) -> Dataset:
    """Draw, render and describe layouts of one split.

    "train" and "validation" have things of `SEEN_PAIRS` only and share no layout. In "compositional" every thing is of
    `NEW_PAIRS`: each of its colours and shapes is in training, but never the two in one thing.

    Args:
        split: one of the three.
        size: number of rows. A layout can occur more than once: of single things there are about 54,000 layouts.
        seed: other seeds give other rows of the same split.
        things: in each picture; by default one to three, equally likely. With one, the rows are labelled.
        side: of the pictures in pixels, a multiple of 32.

    Returns:
        A dataset with the columns `image` (PIL, mode RGB), `caption` (English), `scene` (JSON, read by
        `Layout.from_json`), and with one thing also `label` (`ClassLabel`, the 64 `PAIRS`, "red circle" first).

    Raises:
        ValueError: an unknown split, or a number of rows, things or pixels out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: the shapes have the splits {', '.join(map(repr, SPLITS))}")
    if size < 1:
        raise ValueError(f"the size must be positive, not {size}")
    import torch
    from datasets import ClassLabel, Dataset, Features, Image, Value

    generator, layouts = torch.Generator().manual_seed(seed), list[Layout]()
    pairs = NEW_PAIRS if split == "compositional" else SEEN_PAIRS
    while len(layouts) < size:
        drawn = sample(size, generator, things=things, pairs=pairs)
        layouts += [layout for layout in drawn if held_out(layout) == (split != "train")]
    layouts = layouts[:size]
    columns: dict[str, list] = {
        "image": [{"bytes": _png(pixels), "path": None} for pixels in render(layouts, side)],
        "caption": [english(layout.scene) for layout in layouts],
        "scene": [layout.to_json() for layout in layouts],
    }
    features = {"image": Image(), "caption": Value("string"), "scene": Value("string")}
    if things == 1:
        columns["label"] = [PAIRS.index((x.colour, x.shape)) for layout in layouts for x in layout.scene.things]
        features["label"] = ClassLabel(names=[" ".join(pair) for pair in PAIRS])
    return Dataset.from_dict(columns, features=Features(features))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a file: fast to write, and small enough."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
