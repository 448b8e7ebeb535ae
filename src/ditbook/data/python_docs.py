"""Real English: the manual that every Python carries, `pydoc_data.topics`, about 0.7 MB of it.

It differs a little between versions of Python; never print from it what must compare.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation")
HELD_OUT = 8  # about one topic in eight is kept for validation
SHORTEST = 20  # characters: shorter paragraphs, mostly headings, may stand in both splits


def load(split: str = "train") -> Dataset:
    """Load the topics of Python's manual.

    A hash of a topic's name decides its split, so that a topic stays where it is when others come and go. The manual
    repeats some of its sections under several topics: paragraphs of a validation topic are left out of training.

    Returns:
        A dataset with the columns `topic` and `text`, sorted by topic.

    Raises:
        ValueError: the split is neither "train" nor "validation".

    Source: the Python Software Foundation, *The Python Language Reference* and *Library Reference*, PSF licence.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: the manual has the splits {' and '.join(map(repr, SPLITS))}")
    from pydoc_data.topics import topics

    from datasets import Dataset

    kept = {topic: topics[topic] for topic in sorted(topics) if split_of(topic) == split}
    if split == "train":
        seen = {_plain(part) for topic in topics if split_of(topic) != split for part in paragraphs(topics[topic])}
        repeated = {part for part in seen if len(part) >= SHORTEST}
        for topic, text in kept.items():
            kept[topic] = "\n\n".join(part for part in paragraphs(text) if _plain(part) not in repeated)
    return Dataset.from_dict({"topic": list(kept), "text": list(kept.values())})


def split_of(topic: str) -> str:
    """To which split a topic belongs."""
    digest = hashlib.sha256(topic.encode()).digest()
    return "validation" if int.from_bytes(digest[:4], "big") % HELD_OUT == 0 else "train"


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines."""
    return text.split("\n\n")


def _plain(paragraph: str) -> str:
    """A paragraph without its line breaks and indentation."""
    return " ".join(paragraph.split())
