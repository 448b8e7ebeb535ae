"""Two real photographs, those that scikit-learn carries: a palace in China and a dahlia, each 640 pixels wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ditbook.data import splits

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation")
NAMES = ("china", "flower")
KEPT = 160  # columns at the right of each photograph, for validation


def load(split: str = "train") -> Dataset:
    """Load the left three quarters of both photographs, to train on, or the right quarter.

    Returns:
        A dataset with the columns `image` (PIL, mode RGB, 427×480 or 427×160 pixels) and `label` (`ClassLabel`, names
        `NAMES`).

    Raises:
        ValueError: an unknown split.

    Source: `sklearn.datasets.load_sample_image`; authors and licenses (CC BY 2.0) stand in scikit-learn's
    `datasets/images/README.txt`.
    """
    splits.check_split(split, SPLITS, "the photographs")
    from datasets import ClassLabel, Dataset, Features, Image
    from sklearn.datasets import load_sample_image

    part = slice(None, -KEPT) if split == "train" else slice(-KEPT, None)
    images = [load_sample_image(f"{name}.jpg")[:, part] for name in NAMES]  # (427, W, 3) each
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})
    return Dataset.from_dict({"image": images, "label": list(range(len(NAMES)))}, features=features)
