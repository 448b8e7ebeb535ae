"""Real English: the manual of Python 3.11.7, 0.47 MB of text, which the package carries.

It is the text that Python itself carries for `help()`, the module `pydoc_data.topics`: 79 topics of the *Language
Reference* and the *Library Reference*. Every version of Python changes it, and with it every loss and sample of a model
trained on it, so all readers get this one version, unchanged.

Copyright © 2001-2023 Python Software Foundation; All Rights Reserved. Under the PSF licence agreement, whose text is in
`python_docs.LICENSE.txt` beside this file.
"""

from __future__ import annotations

import lzma
from importlib import resources
from typing import TYPE_CHECKING

from ditbook.data import splits

if TYPE_CHECKING:
    from datasets import Dataset

PYTHON = "3.11.7"  # the version that the text is from
SPLITS = ("train", "validation")
SHORTEST = 20  # characters: shorter paragraphs, mostly headings, may stand in both splits


def load(split: str = "train") -> Dataset:
    """Load the topics of Python's manual.

    A hash of a topic's name decides its split. The manual repeats some of its sections under several topics:
    paragraphs of a validation topic are left out of training.

    Returns:
        A dataset with the columns `topic` and `text`, sorted by topic.

    Raises:
        ValueError: the split is neither "train" nor "validation".

    Source: the Python Software Foundation, *The Python Language Reference* and *Library Reference*, PSF licence.
    """
    splits.check_split(split, SPLITS, "the Python docs")
    from datasets import Dataset

    texts = topics()
    kept = {topic: texts[topic] for topic in sorted(texts) if held_out(topic) == (split == "validation")}
    if split == "train":
        seen = {_plain(part) for topic in texts if held_out(topic) for part in paragraphs(texts[topic])}
        repeated = {part for part in seen if len(part) >= SHORTEST}
        for topic, text in kept.items():
            kept[topic] = "\n\n".join(part for part in paragraphs(text) if _plain(part) not in repeated)
    return Dataset.from_dict({"topic": list(kept), "text": list(kept.values())})


def topics() -> dict[str, str]:
    """The text of every topic, by its name. In the file a form feed and the name on a line stand before each text."""
    text = lzma.decompress(resources.files("ditbook.data").joinpath("python_docs.txt.xz").read_bytes()).decode()
    return dict(part.split("\n", 1) for part in text.split("\f")[1:])


def held_out(topic: str) -> bool:
    """Whether a topic is kept for validation: about one in eight is."""
    return splits.held_out(topic, one_in=8)


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines."""
    return text.split("\n\n")


def _plain(paragraph: str) -> str:
    """A paragraph without its line breaks and indentation."""
    return " ".join(paragraph.split())
