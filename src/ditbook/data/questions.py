"""What can be said of an image in words: questions with their answers of shapes, and captions of emoji by group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from ditbook.data import captions, emoji
from ditbook.data.scene import COLOURS, RELATIONS, SHAPES, SIZES, Scene, Thing

if TYPE_CHECKING:
    import torch

    from ditbook.data.tokenizer import WordTokenizer

OPPOSITES = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}


def of_scene(scene: Scene) -> list[tuple[str, str]]:
    """All questions about a scene of one or two things that have one answer, each with its answer.

    >>> of_scene(captions.parse_english("a small red star"))[:2]
    [('which colour is the star ?', 'red'), ('which size is the star ?', 'small')]
    """
    asked = []
    for thing in scene.things:
        if [it.shape for it in scene.things].count(thing.shape) == 1:
            asked.append((f"which colour is the {thing.shape} ?", thing.colour))
            asked.append((f"which size is the {thing.shape} ?", thing.size))
        if [it.colour for it in scene.things].count(thing.colour) == 1:
            asked.append((f"which shape is {thing.colour} ?", thing.shape))
    for said in scene.relations:
        one, other = scene.things
        if one.shape != other.shape:
            asked.append((f"which shape is {said} the {other.shape} ?", one.shape))
            asked.append((f"which shape is {OPPOSITES[said]} the {one.shape} ?", other.shape))
    return asked


def choose(lists: Iterable[Sequence[tuple[str, str]]], generator: torch.Generator) -> list[tuple[str, str]]:
    """One question of each list, every one equally likely, with its answer."""
    import torch

    lists = list(lists)
    uniform = torch.rand(len(lists), generator=generator, dtype=torch.float64).tolist()
    return [pairs[int(u * len(pairs))] for pairs, u in zip(lists, uniform, strict=True)]


def scene_tokenizer() -> WordTokenizer:
    """The words of captions and questions about one or two things: always the same, so that weights stay valid."""
    from ditbook.data.tokenizer import WordTokenizer

    things = [Thing(*words) for words in product(SIZES, COLOURS, SHAPES)]
    first, scenes = things[0], [Scene((thing,)) for thing in things]
    scenes += [Scene((first, thing), (said,)) for said in RELATIONS for thing in things]
    scenes += [Scene((thing, first), (said,)) for said in RELATIONS for thing in things]
    said = [captions.english(scene) for scene in scenes]
    return WordTokenizer.train(said + [" ".join(pair) for scene in scenes for pair in of_scene(scene)])


def emoji_rows(split: str, groups: Sequence[str]) -> list[tuple[str, str]]:
    """Caption and hand of the emoji of a split that belong to these groups, in the order of the split.

    Raises:
        ValueError: no such group.
    """
    dataset = emoji.load(split).remove_columns("image")
    names, hands = dataset.features["group"].names, dataset.features["hand"].names
    for group in groups:
        if group not in names:
            raise ValueError(f"no group {group!r}; there are {', '.join(names)}")
    columns = zip(dataset["caption"], dataset["hand"], dataset["group"], strict=True)
    return [(caption, hands[hand]) for caption, hand, group in columns if names[group] in groups]
