"""Real handwritten digits: 1,797 scans of 8×8 pixels that scikit-learn carries, so that nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ditbook.data.splits import check_split

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation")
EVERY = 6  # every sixth scan is kept for validation


def load(split: str = "train") -> Dataset:
    """Load the scanned digits.

    Every sixth scan (index % 6 == 5) is kept for validation: 1,498 scans to train on and 299 to validate with.

    Returns:
        A dataset with the columns `image` (PIL, mode L, 8×8 pixels, 0 is paper and 255 is ink) and
        `label` (`ClassLabel`, names "0" to "9").

    Raises:
        ValueError: the split is neither "train" nor "validation".

    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository,
    1998; its test set as `sklearn.datasets.load_digits` carries it, with pixels from 0 to 16.
    """
    check_split(split, SPLITS, "the digits")
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    kept = (np.arange(len(scans.target)) % EVERY == EVERY - 1) == (split == "validation")
    pixels = np.rint(scans.images[kept] * 255 / 16).astype(np.uint8)  # (N, 8, 8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return Dataset.from_dict({"image": list(pixels), "label": scans.target[kept].tolist()}, features=features)
