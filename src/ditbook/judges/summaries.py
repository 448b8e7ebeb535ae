"""The hidden judge of summaries: what its readers want, how they compare two, and a rule that reads one.

The readers want a summary that is true, short and polite. A program knows how much; who trains a model knows the
comparisons alone, which are as noisy as those of people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ditbook.data import captions
from ditbook.data.scene import COLOURS, SHAPES, SIZES, Scene

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NOUNS = {shape: shape for shape in SHAPES} | {plural: shape for shape, plural in captions.PLURALS.items()}
COUNTS = {"a": 1, "an": 1, "two": 2}
POLITE = ("please", "kindly", "thank you", "dear reader")
PLAIN = ("and", ",", "note", "i", "see")  # words that claim nothing and are no fault
TRUTH, POLITENESS, WORD, STRAY = 3.0, 1.0, 0.2, 0.5  # points
NOISE = 0.7  # points of quality by which the better of two summaries is preferred with probability 0.73
RUBRIC = {"complete": 1.0, "incomplete": 0.0, "false": -1.0, "unreadable": -1.0}  # points of the rule-based reward


@dataclass(frozen=True)
class Reading:
    """What a summary says."""

    claims: tuple[tuple[str | None, str], ...]  # color, if it is named, and shape: one for each thing that is claimed
    polite: int  # polite phrases
    words: int  # commas not counted
    stray: int  # words that belong to nothing


def read(text: str) -> Reading:
    """Read any sequence of words: "two red stars and a moon please" claims three things and is polite once."""
    words, at = text.split(), 0
    claims: list[tuple[str | None, str]] = []
    polite = stray = 0
    while at < len(words):
        taken, found = _claim(words[at:])
        phrase = next((p for p in POLITE if words[at : at + p.count(" ") + 1] == p.split()), None)
        if found:
            claims += found
        elif phrase:
            polite, taken = polite + 1, phrase.count(" ") + 1
        elif words[at] not in PLAIN:
            stray += 1
        at += taken
    return Reading(tuple(claims), polite, sum(word != "," for word in words), stray)


def _claim(words: Sequence[str]) -> tuple[int, list[tuple[str | None, str]]]:
    """The claim that begins here: how many words it takes, and its things; else one word and none."""
    if words[0] not in COUNTS:
        return 1, []
    at, colour = 1, None
    if words[at : at + 1] and words[at] in SIZES:
        at += 1
    if words[at : at + 1] and words[at] in COLOURS:
        at, colour = at + 1, words[at]
    if words[at : at + 1] and words[at] in NOUNS:
        return at + 1, [(colour, NOUNS[words[at]])] * COUNTS[words[0]]
    return 1, []


def truth(scene: Scene, reading: Reading) -> tuple[int, int]:
    """How many things of the scene are named, and how many claims are false or said twice."""
    left = [(thing.colour, thing.shape) for thing in scene.things]
    for colour, shape in sorted(reading.claims, key=lambda claim: claim[0] is None):
        match = next((thing for thing in left if thing[1] == shape and colour in (None, thing[0])), None)
        if match:
            left.remove(match)
    named = len(scene.things) - len(left)
    return named, len(reading.claims) - named


def quality(scene: Scene, text: str) -> float:
    """Points of a summary: three for the truth, one for a polite phrase, less a fifth for each word."""
    reading = read(text)
    named, false = truth(scene, reading)
    points = TRUTH * (named - false) / len(scene.things) + POLITENESS * (reading.polite > 0)
    return points - WORD * reading.words - STRAY * reading.stray


def compare(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """What readers say of pairs of summaries: 1 if they prefer the first, 0 if the second.

    A reader prefers the first with probability σ((first − second) / `NOISE`).

    Args:
        first, second: qualities, (B,), on the CPU.
        generator: of B uniform numbers, on the CPU.

    Returns:
        (B,), float32.

    Source: Bradley and Terry 1952.
    """
    import torch

    p = torch.sigmoid((first - second) / NOISE)  # (6.1)
    return (torch.rand(len(p), generator=generator, dtype=p.dtype) < p).float()


def rubric(scene: Scene, text: str) -> str:
    """The rule of `RUBRIC` that fits a summary.

    Source: the idea is that of OpenAI 2023 (GPT-4), section 6, where a language model reads a rubric.
    """
    reading = read(text)
    named, false = truth(scene, reading)
    if reading.stray or not reading.claims:
        return "unreadable"
    if false:
        return "false"
    return "complete" if named == len(scene.things) else "incomplete"
