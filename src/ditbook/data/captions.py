"""Captions: scenes said in English and in French, and parsed back from both, exactly.

"a small red star above a large blue square" is "une petite étoile rouge au-dessus d'un grand carré bleu". What a
grammar writes its parser reads back; whatever else is refused at the first wrong word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from ditbook.data import splits
from ditbook.data.scene import COLOURS, MAX_THINGS, RELATIONS, SHAPES, SIZES, Scene, Thing

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from ditbook.data.tokenizer import WordTokenizer

SPLITS = ("train", "validation")

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

    >>> summary(parse_english("a small red star left of a large grey star"))
    'two stars'
    """
    shapes = [thing.shape for thing in scene.things]
    parts = []
    for shape in dict.fromkeys(shapes):
        count = shapes.count(shape)
        article = "an" if shape[0] in "aeiou" else "a"
        parts.append(f"{article} {shape}" if count == 1 else f"{NUMBERS[count - 2]} {PLURALS[shape]}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


LANGUAGES = {"english": english, "french": french, "summary": summary}


def parse_english(text: str) -> Scene:
    """Read what `english` wrote.

    Raises:
        ValueError: the first word that does not fit, its number, and what would.
    """
    parser = _Parser(text.split(" "))

    def thing() -> Thing:
        parser.read({"a": None}, "the article")
        return Thing(
            parser.read({size: size for size in SIZES}, "a size"),
            parser.read({colour: colour for colour in COLOURS}, "a colour"),
            parser.read({shape: shape for shape in SHAPES}, "a shape"),
        )

    return parser.scene(thing, {relation: relation for relation in RELATIONS})


def parse_french(text: str) -> Scene:
    """Read what `french` wrote. The article announces a gender, and every word up to the next one must agree with it.

    Raises:
        ValueError: the first word that does not fit, its number, and what would.
    """
    parser = _Parser(text.replace("d'", "d' ").split(" "))

    def thing() -> Thing:
        gender = parser.read({article: gender for gender, article in enumerate(ARTICLES)}, "an article")
        kind = ("masculine", "feminine")[gender]
        size = parser.read({ADJECTIVES[size][gender]: size for size in SIZES}, f"a {kind} size")
        shape = parser.read({noun: shape for shape, (noun, g) in NOUNS.items() if g == gender}, f"a {kind} noun")
        colour = parser.read({ADJECTIVES[colour][gender]: colour for colour in COLOURS}, f"a {kind} colour")
        return Thing(size, colour, shape)

    return parser.scene(thing, {phrase.strip(): name for name, phrase in FRENCH_RELATIONS.items()})


class _Parser:
    """Reads a sentence from left to right, phrase by phrase."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.at = words, 0

    def read(self, phrases: Mapping[str, T], what: str) -> T:
        """Take one of the phrases and return what it stands for. No phrase may be the start of another."""
        left, depth = {tuple(phrase.split(" ")): value for phrase, value in phrases.items()}, 0
        while True:
            ended = self.at == len(self.words)
            fitting = {} if ended else {p: value for p, value in left.items() if p[depth] == self.words[self.at]}
            if not fitting:
                found = (
                    f"the sentence ends at word {self.at}"
                    if ended
                    else f"word {self.at + 1} is {self.words[self.at]!r}"
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
            if len(things) == MAX_THINGS:
                raise ValueError(
                    f"word {self.at + 1} is {self.words[self.at]!r}; a scene ends after {MAX_THINGS} things"
                )
            between.append(self.read(relations, "a relation"))
            things.append(thing())
        return Scene(tuple(things), tuple(between))


def sample(generator: torch.Generator, things: int | None = None) -> Scene:
    """Sample a scene, every word equally likely.

    Args:
        generator: where the random numbers come from, on the CPU.
        things: how many; by default one to five, equally likely.
    """
    import torch

    numbers = iter(torch.rand(1 + 4 * MAX_THINGS, generator=generator, dtype=torch.float64).tolist())

    def choose(words: tuple[T, ...]) -> T:
        return words[int(next(numbers) * len(words))]

    count = choose(tuple(range(1, MAX_THINGS + 1)))
    count = count if things is None else things
    chosen = tuple(Thing(choose(SIZES), choose(COLOURS), choose(SHAPES)) for _ in range(count))
    return Scene(chosen, tuple(choose(RELATIONS) for _ in range(count - 1)))


def held_out(scene: Scene) -> bool:
    """Whether a scene is kept for validation: one in ten is."""
    return splits.held_out(scene.to_json(), one_in=10)


def load(split: str = "train", size: int = 20_000, seed: int = 0) -> Dataset:
    """Sample scenes of one split and say them in every language.

    Args:
        split: "train" or "validation", which share no scene.
        size: number of rows. A scene can occur more than once: of single things there are only 128.
        seed: other seeds give other rows of the same split.

    Returns:
        A dataset of `size` rows with the columns `caption` (English), `french`, `summary` and `scene` (JSON,
        read by `Scene.from_json`).

    Raises:
        ValueError: the split is neither "train" nor "validation", or the size is not positive.
    """
    import torch
    from datasets import Dataset

    splits.check_split(split, SPLITS, "the captions")
    if size < 1:
        raise ValueError(f"the size must be positive, not {size}")
    generator = torch.Generator().manual_seed(seed)
    scenes: list[Scene] = []
    while len(scenes) < size:
        if held_out(scene := sample(generator)) == (split == "validation"):
            scenes.append(scene)
    columns = {"caption": english, "french": french, "summary": summary, "scene": Scene.to_json}
    return Dataset.from_dict({name: list(map(say, scenes)) for name, say in columns.items()})


def tokenizer(language: str) -> WordTokenizer:
    """The tokenizer of "english", "french" or "summary": always the same, so that trained weights stay valid.

    Raises:
        ValueError: no such language.
    """
    from ditbook.data.tokenizer import WordTokenizer

    if language not in LANGUAGES:
        raise ValueError(f"no language {language!r}; there are {', '.join(LANGUAGES)}")
    one = [Thing(size, colour, shape) for shape in SHAPES for colour in COLOURS for size in SIZES]
    scenes = [Scene((thing,)) for thing in one]
    scenes += [Scene((thing, other), (relation,)) for relation in RELATIONS for thing in one[:1] for other in one]
    rows = [[Thing("small", "red", shape)] * count for shape in SHAPES for count in range(1, MAX_THINGS + 1)]
    rows += [[*row, other] for row in rows if len(row) < MAX_THINGS for other in (one[0], one[-1])]
    rows += [[one[0], *row, one[-1]] for row in rows if len(row) < MAX_THINGS - 1]
    scenes += [Scene(tuple(row), ("above",) * (len(row) - 1)) for row in rows]
    return WordTokenizer.train(map(LANGUAGES[language], scenes))
