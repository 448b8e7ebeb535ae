"""Short summaries of scenes, as several people would write them: some polite, some long, some with mistakes.

A scene of two things is said in English; its summary names the shapes, perhaps with their colors, perhaps with
a polite phrase before or after: "please note a star and a moon". The texts have one vocabulary of 50 words.

Letters: `B` batch, `P` tokens of the longest prompt, `T` tokens of the longest summary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from ditbook.data import captions
from ditbook.data.scene import COLOURS, RELATIONS, SHAPES, SIZES, Scene, Thing
from ditbook.data.tokenizer import BOS, EOS, PAD, WordTokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
LONGEST_PROMPT = 10  # P: two things of four words, a relation of two
LONGEST = 14  # T: tokens of the longest summary, its end included; those of the demonstrations take 11
THINGS = 2
# What stands before and after the content, and how many summaries in twenty have it.
MANNERS = {
    ("", ""): 5,
    ("i see ", ""): 5,
    ("please note ", ""): 3,
    ("kindly note ", ""): 1,
    ("dear reader , ", ""): 2,
    ("", " please"): 2,
    ("", " , thank you"): 2,
}
STYLES = {"counted": 8, "plain": 4, "colored": 8}  # "two stars", "a star and a star", with the colors
LAPSE = 0.1  # probability of each thing to be left out, and as much again to be named wrongly


def tokenizer() -> WordTokenizer:
    """The tokenizer of scenes and summaries: always the same, so that trained weights stay valid."""
    words = ["a an two and , please kindly note dear reader i see thank you"]
    words += [" ".join([*SIZES, *COLOURS, *SHAPES, *map(captions.PLURALS.__getitem__, SHAPES), *RELATIONS])]
    return WordTokenizer(dict.fromkeys(f" {word}" for part in words for word in part.split()))


def encode(text: str) -> list[int]:
    """The tokens of a scene in English or of a summary, one for each word.

    Raises:
        ValueError: a word that is not in the vocabulary.
    """
    return tokenizer().encode(f" {text}")


def decode(tokens: Sequence[int]) -> str:
    """The text of tokens up to the first end token; padding and begin are left out."""
    ids = list(tokens)
    return tokenizer().decode(ids[: ids.index(EOS)] if EOS in ids else ids).strip()


def sample_scenes(count: int, generator: torch.Generator, *, held_out: bool = False) -> list[Scene]:
    """Scenes of two things, every word equally likely; `held_out` scenes never occur among the others.

    Args:
        generator: on the CPU.
    """
    scenes: list[Scene] = []
    while len(scenes) < count:
        if captions.held_out(scene := captions.sample(generator, THINGS)) == held_out:
            scenes.append(scene)
    return scenes


def prompts(scenes: Sequence[Scene]) -> Tensor:
    """Scenes in English, padded on the left, and the begin token of the summary: (B, P + 1)."""
    import torch

    rows = [encode(captions.english(scene)) for scene in scenes]
    return torch.tensor([[PAD] * (LONGEST_PROMPT - len(row)) + row + [BOS] for row in rows])


def targets(summaries: Sequence[str]) -> Tensor:
    """Summaries with the end token, padded on the right: (B, T).

    Raises:
        ValueError: a summary is too long, or has an unknown word.
    """
    import torch

    rows = [[*encode(text), EOS] for text in summaries]
    if max(map(len, rows)) > LONGEST:
        raise ValueError(f"a summary of {max(map(len, rows))} tokens; {LONGEST} is the longest")
    return torch.tensor([row + [PAD] * (LONGEST - len(row)) for row in rows])


def demonstrations(scenes: Sequence[Scene], generator: torch.Generator) -> list[str]:
    """One summary for each scene, with the habits and the lapses of many writers.

    Args:
        generator: of eight uniform numbers for each summary, on the CPU.
    """
    import torch

    numbers = torch.rand(len(scenes), 2 + 3 * THINGS, generator=generator, dtype=torch.float64).tolist()
    return [_demonstration(scene, row) for scene, row in zip(scenes, numbers, strict=True)]


def _demonstration(scene: Scene, numbers: Sequence[float]) -> str:
    before, after = _one_of(MANNERS, numbers[0])
    style = _one_of(STYLES, numbers[1])
    lapses = zip(scene.things, numbers[2::3], numbers[3::3], numbers[4::3], strict=True)
    things = [
        thing if lapse >= 2 * LAPSE else Thing(thing.size, _at(COLOURS, colour), _at(SHAPES, shape))
        for thing, lapse, colour, shape in lapses
        if lapse >= LAPSE
    ] or list(scene.things)
    if style == "counted":
        content = captions.summary(Scene(tuple(things), ("above",) * (len(things) - 1)))
    else:
        content = " and ".join(_phrase(thing, colored=style == "colored") for thing in things)
    return f"{before}{content}{after}"


def _phrase(thing: Thing, colored: bool) -> str:
    words = f"{thing.colour} {thing.shape}" if colored else thing.shape
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _one_of(weights: Mapping[T, int], number: float) -> T:
    """A key, in proportion to its weight, by a number in [0, 1)."""
    return [key for key, weight in weights.items() for _ in range(weight)][int(number * sum(weights.values()))]


def _at(words: Sequence[str], number: float) -> str:
    return words[int(number * len(words))]
