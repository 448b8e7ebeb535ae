"""Which rows are kept from training: a hash of a row decides, so that no row can be in both splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def held_out(key: str, one_in: int) -> bool:
    """Whether a row is kept from training, the same on every machine and whatever other rows there are.

    Args:
        key: what makes the row the row it is: its name, or all of it as JSON.
        one_in: about one row in so many is held out.
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % one_in == 0


def check_split(split: str, splits: Sequence[str], what: str) -> None:
    """Refuse a split that a dataset does not have.

    Args:
        split: the one that the caller wants.
        splits: those that there are.
        what: the name of the dataset in the error, "the digits".

    Raises:
        ValueError: the split is not among them.
    """
    if split not in splits:
        *others, last = map(repr, splits)
        raise ValueError(f"unknown split {split!r}: {what} have the splits {', '.join(others)} and {last}")
