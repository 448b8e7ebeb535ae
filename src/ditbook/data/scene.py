"""Scenes and layouts: the words of the shapes world, what stands in an image, and where.

A scene is one to five things and the relation of each to the next. A layout is a scene of one to three things with a
place for each of them; one whose things overlap, leave the image, or do not stand as the scene says, is refused, so
that a caption of a layout is true by construction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise, permutations

SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "grey")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "moon", "arrow")
RELATIONS = ("above", "below", "left of", "right of")
MAX_THINGS = 5  # of a scene
MAX_PLACED = 3  # things of a layout

SIDE = 32  # of the world, in pixels; larger images show the same world with more pixels
RADII = {"small": 4, "large": 6}  # half the side of the square that a thing takes up, in pixels of the world
GAP = 1  # pixels between the squares that two things take up, at least

Place = tuple[int, int]  # centre (x, y), in pixels of the world from its upper left corner, y downwards


@dataclass(frozen=True)
class Thing:
    """One thing of a scene.

    Raises:
        ValueError: a size, colour or shape that the language has no word for.
    """

    size: str
    colour: str
    shape: str

    def __post_init__(self) -> None:
        for word, known in ((self.size, SIZES), (self.colour, COLOURS), (self.shape, SHAPES)):
            if word not in known:
                raise ValueError(f"{word!r} is none of {', '.join(known)}")


@dataclass(frozen=True)
class Scene:
    """Things, and how each stands to the next: `relations[i]` places `things[i]` with respect to `things[i + 1]`.

    Raises:
        ValueError: no thing or more than five, an unknown relation, or not one relation less than things.
    """

    things: tuple[Thing, ...]
    relations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.things) <= MAX_THINGS:
            raise ValueError(f"a scene has 1 to {MAX_THINGS} things, not {len(self.things)}")
        if len(self.relations) != len(self.things) - 1:
            raise ValueError(f"{len(self.things)} things need {len(self.things) - 1} relations: {self.relations}")
        for relation in self.relations:
            if relation not in RELATIONS:
                raise ValueError(f"{relation!r} is none of {', '.join(RELATIONS)}")

    def to_json(self) -> str:
        """The scene as JSON, always the same for the same scene."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Scene:
        """The scene that `to_json` wrote."""
        fields = json.loads(text)
        return Scene(tuple(Thing(**thing) for thing in fields["things"]), tuple(fields["relations"]))


@dataclass(frozen=True)
class Layout:
    """A scene, and where the centre of each of its things is.

    Raises:
        ValueError: more than three things, not one place for each, a thing outside the image, two that overlap, or a
            relation that the places do not show.
    """

    scene: Scene
    places: tuple[Place, ...]

    def __post_init__(self) -> None:
        things = self.scene.things
        if not len(self.places) == len(things) <= MAX_PLACED:
            raise ValueError(
                f"{len(things)} things at {len(self.places)} places; expected as many, {MAX_PLACED} at most"
            )
        radii = [RADII[thing.size] for thing in things]
        for place, radius in zip(self.places, radii, strict=True):
            if not all(radius <= along <= SIDE - radius for along in place):
                raise ValueError(f"a thing at {place} leaves the image: {radius} to {SIDE - radius} is inside")
        for (one, r), (other, s) in combinations(zip(self.places, radii, strict=True), 2):
            if max(abs(one[0] - other[0]), abs(one[1] - other[1])) < r + s + GAP:
                raise ValueError(f"things at {one} and {other} overlap: they must be {r + s + GAP} pixels apart")
        for said, (one, other) in zip(self.scene.relations, pairwise(self.places), strict=True):
            if not holds(said, one, other):
                raise ValueError(f"a thing at {one} is not {said} one at {other}")

    def to_json(self) -> str:
        """The layout as JSON, always the same for the same layout; `Scene.from_json` reads its scene."""
        things = [{"colour": thing.colour, "shape": thing.shape, "size": thing.size} for thing in self.scene.things]
        return json.dumps({"places": self.places, "relations": self.scene.relations, "things": things})

    @staticmethod
    def from_json(text: str) -> Layout:
        """The layout that `to_json` wrote."""
        return Layout(Scene.from_json(text), tuple((x, y) for x, y in json.loads(text)["places"]))


def holds(relation: str, one: Place, other: Place) -> bool:
    """Whether a thing at `one` stands above, below, left of or right of a thing at `other`.

    The axis along which they are farther apart decides: one relation holds, or none if they stand diagonally.
    """
    x, y = other[0] - one[0], other[1] - one[1]
    return {"above": y > abs(x), "below": -y > abs(x), "left of": x > abs(y), "right of": -x > abs(y)}[relation]


def shows(seen: Sequence[tuple[Thing, Place]], scene: Scene) -> bool:
    """Whether things at places are what a scene says: its things and no more, so placed that its relations hold.

    A scene can be said in several ways ("a star above a moon", "a moon below a star"): it is true in all or in none.
    """
    if len(seen) != len(scene.things):
        return False
    for order in permutations(seen):
        things, places = zip(*order, strict=True)
        steps = zip(scene.relations, places, places[1:], strict=False)
        if things == scene.things and all(holds(said, one, other) for said, one, other in steps):
            return True
    return False
