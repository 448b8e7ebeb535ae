"""Six tasks of composition, as GenEval sets them, judged exactly: by what a reader finds in an image of a scene.

As in GenEval a task is about one part of what a caption says: what the image shows besides does not matter, except in
counting. Whether an image shows all that its caption says, and no more, is `data.scene.shows`.
Source: Ghosh et al. 2023, "GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ditbook.data import shapes
from ditbook.data.scene import Place, Scene, Thing, holds

if TYPE_CHECKING:
    import torch

Seen = Sequence[tuple[Thing, Place]]  # things and their places, as `SceneReader.read` finds them


@dataclass(frozen=True)
class Task:
    """What an image has to show, and for which scenes."""

    things: tuple[int, ...]  # how many the scenes have, as many of each number
    suits: Callable[[Scene], bool]  # whether a scene of so many things is one for this task
    passed: Callable[[Seen, Scene], bool]


def _any(scene: Scene) -> bool:
    return True


def _shapes_differ(scene: Scene) -> bool:
    return len({thing.shape for thing in scene.things}) == len(scene.things)


def _shapes_and_colours_differ(scene: Scene) -> bool:
    return _shapes_differ(scene) and len({thing.colour for thing in scene.things}) == len(scene.things)


def _shapes_agree(scene: Scene) -> bool:
    return len({thing.shape for thing in scene.things}) == 1


def _shows_shapes(seen: Seen, scene: Scene) -> bool:
    return {thing.shape for thing in scene.things} <= {thing.shape for thing, _ in seen}


def _shows_as_many(seen: Seen, scene: Scene) -> bool:
    return sum(thing.shape == scene.things[0].shape for thing, _ in seen) == len(scene.things)


def _shows_colours(seen: Seen, scene: Scene) -> bool:
    wanted = {(thing.colour, thing.shape) for thing in scene.things}
    return wanted <= {(thing.colour, thing.shape) for thing, _ in seen}


def _shows_relation(seen: Seen, scene: Scene) -> bool:
    one, other = scene.things
    firsts, seconds = ([place for it, place in seen if it.shape == thing.shape] for thing in (one, other))
    return any(holds(scene.relations[0], a, b) for a in firsts for b in seconds)


TASKS = {
    "single thing": Task((1,), _any, _shows_shapes),
    "two things": Task((2,), _shapes_differ, _shows_shapes),
    "counting": Task((2, 3), _shapes_agree, _shows_as_many),
    "color": Task((1,), _any, _shows_colours),
    "position": Task((2,), _shapes_differ, _shows_relation),
    "color binding": Task((2,), _shapes_and_colours_differ, _shows_colours),
}


def passed(task: str, seen: Seen, scene: Scene) -> bool:
    """Whether an image passes a task.

    Args:
        task: one of `TASKS`.
        seen: what a reader finds in the image.
        scene: what the image's caption says.

    Raises:
        ValueError: no such task.
    """
    return _task(task).passed(seen, scene)


def scenes(
    task: str, count: int, generator: torch.Generator, *, pairs: Sequence[tuple[str, str]] = shapes.PAIRS
) -> list[Scene]:
    """Sample scenes for a task, such as have room in an image.

    Args:
        task: one of `TASKS`.
        count: how many scenes.
        generator: where the random numbers come from, on the CPU.
        pairs: the colors and shapes that may go together, such as `shapes.NEW_PAIRS`.

    Raises:
        ValueError: no such task.
    """
    kind = _task(task)
    found: list[list[Scene]] = [[] for _ in kind.things]
    for k, (things, part) in enumerate(zip(kind.things, found, strict=True)):
        wanted = (count - k + len(kind.things) - 1) // len(kind.things)
        while len(part) < wanted:
            layouts = shapes.sample(count, generator, things=things, pairs=pairs)
            part += [layout.scene for layout in layouts if kind.suits(layout.scene)]
        del part[wanted:]
    return [scene for part in found for scene in part]


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]
