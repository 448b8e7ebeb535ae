"""Emoji: real drawings with real words, by six hands that drew the same things, so that thing and style come apart.

8,427 images, 32×32 pixels on white, of 1,566 things that at least four of the hands drew, 1,018 by all six. The caption
is Unicode's name of the thing. `tools/draw_emoji.py` made the file. Authors and licenses of the hands stand in it, see
`licenses`, and with their texts in `emoji.LICENSE.txt` beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING

from ditbook.data import splits

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

    from ditbook.data.tokenizer import WordTokenizer

SPLITS = ("train", "things", "pairs")
HANDS = ("noto", "noto-v1", "twemoji", "fluent", "fluent-flat", "emojione")
SIBLINGS = {"fluent-flat": "fluent"}  # the flat drawing is the other one without its light and shade


def load(split: str = "train") -> Dataset:
    """Load the emoji of one split.

    "train" has 7,792 images. "things" has all 427 of one thing in twenty. "pairs" has 208 single drawings of things
    that all six hands drew and that are in training as other hands drew them: samples for such a pair can be compared
    with the drawing held out. Of Fluent's two hands, whose drawings of a thing are nearly the same, both or none are
    kept from training. A drawing that a hand uses for two things is in the file for one of them only.

    Names that are near to each other, such as those of faces, are near in the images too, so judge by group. Emoji must
    not be flipped: letters and arrows change their meaning.

    Returns:
        A dataset with the columns `image` (PIL, mode RGB, 32×32 pixels), `caption` ("red apple"), `hand`
        (`ClassLabel`, names `HANDS`), `group` (`ClassLabel`, Unicode's nine groups, "Food & Drink") and `thing` (its
        code points, "1f34e"), sorted by caption.

    Raises:
        ValueError: an unknown split.

    Source: Noto Emoji (Google), in two versions; Twemoji (Twitter and contributors); Fluent Emoji (Microsoft), in two
    styles; EmojiOne 2.3. Names by Unicode's CLDR.
    """
    splits.check_split(split, SPLITS, "the emoji")
    from datasets import Dataset
    from datasets.table import InMemoryTable

    dataset = Dataset(InMemoryTable(_table()))
    things, names = list(dataset["thing"]), dataset.features["hand"].names
    hands = Counter(things)
    pairs = enumerate(zip(things, dataset["hand"], strict=True))
    return dataset.select([row for row, (thing, hand) in pairs if split_of(thing, names[hand], hands[thing]) == split])


def split_of(thing: str, hand: str, hands: int) -> str:
    """The split of a drawing: of a thing by a hand, where so many hands drew the thing."""
    if splits.held_out(thing, one_in=20):
        return "things"
    pair = f"{thing} {SIBLINGS.get(hand, hand)}"
    return "pairs" if hands == len(HANDS) and splits.held_out(pair, one_in=30) else "train"


def prompt(name: str, hand: str | None = None) -> str:
    """A caption that says the hand too, or not, as `tokenizer` takes it: with a space before the first word.

    >>> prompt("red apple", "twemoji")
    ' red apple, twemoji'
    """
    return f" {name}" if hand is None else f" {name}, {hand}"


def tokenizer() -> WordTokenizer:
    """The tokenizer of `prompt`, with the words of all splits: always the same, so that trained weights stay valid."""
    from ditbook.data.tokenizer import WordTokenizer

    names = sorted(set(_table()["caption"].to_pylist()))
    return WordTokenizer.train([*map(prompt, names), *(prompt(names[0], hand) for hand in HANDS)])


def licenses() -> dict[str, dict[str, str]]:
    """Of each hand: its `author`, its `license` (SPDX), and the npm `package` that the drawings are from."""
    return json.loads(_table().schema.metadata[b"licenses"])


def _table() -> pyarrow.Table:
    """The file: one row for each drawing."""
    import pyarrow
    from pyarrow import parquet

    return parquet.read_table(
        pyarrow.BufferReader(resources.files("ditbook.data").joinpath("emoji.parquet").read_bytes())
    )
