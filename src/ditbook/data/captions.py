"""The language of scenes: what stands where, said in English and in French, and read back from both.

A scene is one to five things, each with a size, a colour and a shape, and the relation of each to the next:
"a small red star above a large blue square" is "une petite étoile rouge au-dessus d'un grand carré bleu". Both
grammars are exact: what they write they read back, and whatever else is refused at the first wrong word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from ditbook.data.tokenizer import WordTokenizer

SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "grey")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "moon", "arrow")
RELATIONS = ("above", "below", "left of", "right of")
MOST = 5  # things of a scene
SPLITS = ("train", "validation")
HELD_OUT = 10  # one scene in ten is kept for validation
LANGUAGES = ("english", "french", "summary")

# French: masculine and feminine form. Sizes stand before the noun, colours after it.
ARTICLES = ("un", "une")
ADJECTIVES = {
    "small": ("petit", "petite"),
    "large": ("grand", "grande"),
    "red": ("rouge", "rouge"),
    "green": ("vert", "verte"),
    "blue": ("bleu", "bleue"),
    "yellow": ("jaune", "jaune"),
    "orange": ("orange", "orange"),
    "purple": ("violet", "violette"),
    "white": ("blanc", "blanche"),
    "grey": ("gris", "grise"),
}
NOUNS = {  # and its gender: 0 masculine, 1 feminine
    "circle": ("cercle", 0),
    "square": ("carré", 0),
    "triangle": ("triangle", 0),
    "diamond": ("losange", 0),
    "star": ("étoile", 1),
    "cross": ("croix", 1),
    "moon": ("lune", 1),
    "arrow": ("flèche", 1),
}
# "de" loses its vowel before "un" and "une"; "sous" takes no "de".
FRENCH_RELATIONS = {"above": "au-dessus d'", "below": "sous ", "left of": "à gauche d'", "right of": "à droite d'"}
NUMBERS = ("two", "three", "four", "five")
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}

T = TypeVar("T")


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
        if not 1 <= len(self.things) <= MOST:
            raise ValueError(f"a scene has 1 to {MOST} things, not {len(self.things)}")
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


def english(scene: Scene) -> str:
    """Say a scene in English."""
    words = [f"a {thing.size} {thing.colour} {thing.shape}" for thing in scene.things]
    return " ".join(part for pair in zip(words, (*scene.relations, ""), strict=True) for part in pair if part)


def french(scene: Scene) -> str:
    """Say a scene in French: every word around a noun takes the noun's gender."""
    text = ""
    for thing, relation in zip(scene.things, (*scene.relations, ""), strict=True):
        noun, gender = NOUNS[thing.shape]
        words = ARTICLES[gender], ADJECTIVES[thing.size][gender], noun, ADJECTIVES[thing.colour][gender]
        text += " ".join(words) + (f" {FRENCH_RELATIONS[relation]}" if relation else "")
    return text


def summary(scene: Scene) -> str:
    """Say in English how many things of each shape there are, in the order in which they are first named.

    >>> summary(parse_english("a small red star above a large blue square left of a large grey star"))
    'two stars and a square'
    """
    shapes = [thing.shape for thing in scene.things]
    parts = []
    for shape in dict.fromkeys(shapes):
        count = shapes.count(shape)
        article = "an" if shape[0] in "aeiou" else "a"
        parts.append(f"{article} {shape}" if count == 1 else f"{NUMBERS[count - 2]} {PLURALS[shape]}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def parse_english(text: str) -> Scene:
    """Read what `english` wrote.

    Raises:
        ValueError: the first word that does not fit, its number, and what would.
    """
    reader = _Reader(text.split(" "))

    def thing() -> Thing:
        reader.read({"a": None}, "the article")
        return Thing(
            reader.read({size: size for size in SIZES}, "a size"),
            reader.read({colour: colour for colour in COLOURS}, "a colour"),
            reader.read({shape: shape for shape in SHAPES}, "a shape"),
        )

    return reader.scene(thing, {relation: relation for relation in RELATIONS})


def parse_french(text: str) -> Scene:
    """Read what `french` wrote. The article announces a gender, and every word up to the next one must agree with it.

    Raises:
        ValueError: the first word that does not fit, its number, and what would.
    """
    reader = _Reader(text.replace("d'", "d' ").split(" "))

    def thing() -> Thing:
        gender = reader.read({article: gender for gender, article in enumerate(ARTICLES)}, "an article")
        kind = ("masculine", "feminine")[gender]
        size = reader.read({ADJECTIVES[size][gender]: size for size in SIZES}, f"a {kind} size")
        shape = reader.read({noun: shape for shape, (noun, g) in NOUNS.items() if g == gender}, f"a {kind} noun")
        colour = reader.read({ADJECTIVES[colour][gender]: colour for colour in COLOURS}, f"a {kind} colour")
        return Thing(size, colour, shape)

    return reader.scene(thing, {phrase.strip(): name for name, phrase in FRENCH_RELATIONS.items()})


class _Reader:
    """Reads a sentence from left to right, phrase by phrase."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.at = words, 0

    def read(self, phrases: Mapping[str, T], what: str) -> T:
        """Take one of the phrases and return what it stands for. No phrase may be the start of another."""
        left, depth = {tuple(phrase.split(" ")): value for phrase, value in phrases.items()}, 0
        while True:
            word = self.words[self.at] if self.at < len(self.words) else None
            fitting = {phrase: value for phrase, value in left.items() if phrase[depth] == word}
            if not fitting:
                found = (
                    f"word {self.at + 1} is {word!r}" if word is not None else f"the sentence ends at word {self.at}"
                )
                wanted = ", ".join(dict.fromkeys(phrase[depth] for phrase in left))
                raise ValueError(f"{found}; expected {what}: {wanted}")
            self.at, left, depth = self.at + 1, fitting, depth + 1
            for phrase, value in left.items():
                if len(phrase) == depth:
                    return value

    def scene(self, thing: Callable[[], Thing], relations: Mapping[str, str]) -> Scene:
        """Read things with relations between them, to the end of the sentence."""
        things, between = [thing()], []
        while self.at < len(self.words):
            if len(things) == MOST:
                raise ValueError(f"word {self.at + 1} is {self.words[self.at]!r}; a scene ends after {MOST} things")
            between.append(self.read(relations, "a relation"))
            things.append(thing())
        return Scene(tuple(things), tuple(between))


def sample(generator: torch.Generator, things: int | None = None) -> Scene:
    """Draw a scene, every word equally likely.

    Args:
        generator: where the random numbers come from.
        things: how many; by default one to five, equally likely.
    """
    import torch

    draws = iter(torch.rand(1 + 4 * MOST, generator=generator, dtype=torch.float64).tolist())

    def choose(words: tuple[T, ...]) -> T:
        return words[int(next(draws) * len(words))]

    count = choose(tuple(range(1, MOST + 1)))
    count = count if things is None else things
    drawn = tuple(Thing(choose(SIZES), choose(COLOURS), choose(SHAPES)) for _ in range(count))
    return Scene(drawn, tuple(choose(RELATIONS) for _ in range(count - 1)))


def split_of(scene: Scene) -> str:
    """To which split a scene belongs: a hash of it decides, so that no scene can be in both."""
    digest = hashlib.sha256(scene.to_json().encode()).digest()
    return "validation" if int.from_bytes(digest[:4], "big") % HELD_OUT == 0 else "train"


def load(split: str = "train", size: int = 20_000, seed: int = 0) -> Dataset:
    """Draw scenes of one split and say them in every language.

    Returns:
        A dataset of `size` rows with the columns `caption` (English), `french`, `summary` and `scene` (JSON).
        A scene can occur more than once; of single things there are only 128.

    Raises:
        ValueError: the split is neither "train" nor "validation", or the size is not positive.
    """
    import torch
    from datasets import Dataset

    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: the captions have the splits {' and '.join(map(repr, SPLITS))}")
    if size < 1:
        raise ValueError(f"the size must be positive, not {size}")
    generator = torch.Generator().manual_seed(seed)
    scenes: list[Scene] = []
    while len(scenes) < size:
        if split_of(scene := sample(generator)) == split:
            scenes.append(scene)
    columns = {"caption": english, "french": french, "summary": summary, "scene": Scene.to_json}
    return Dataset.from_dict({name: [say(scene) for scene in scenes] for name, say in columns.items()})


def tokenizer(language: str) -> WordTokenizer:
    """The words of "english", "french" or "summary", always in the same order, so that trained weights stay valid.

    Raises:
        ValueError: no such language.
    """
    from ditbook.data.tokenizer import WordTokenizer

    if language not in LANGUAGES:
        raise ValueError(f"no language {language!r}; there are {', '.join(LANGUAGES)}")
    say = {"english": english, "french": french, "summary": summary}[language]
    one = [Thing(size, colour, shape) for shape in SHAPES for colour in COLOURS for size in SIZES]
    scenes = [Scene((thing,)) for thing in one]
    scenes += [Scene((thing, other), (relation,)) for relation in RELATIONS for thing in one[:1] for other in one]
    rows = [[Thing("small", "red", shape)] * count for shape in SHAPES for count in range(1, MOST + 1)]
    rows += [[*row, other] for row in rows if len(row) < MOST for other in (one[0], one[-1])]
    rows += [[one[0], *row, one[-1]] for row in rows if len(row) < MOST - 1]
    scenes += [Scene(tuple(row), ("above",) * (len(row) - 1)) for row in rows]
    return WordTokenizer.train(say(scene) for scene in scenes)
