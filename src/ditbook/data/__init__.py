"""Data: every loader returns a `datasets.Dataset` with the columns `image`, `label`, `caption`, whichever apply.

So data are exchanged by changing one line. `tensors` turns such a dataset into what a model takes.
Letters: `N` images, `C H W` channels, height, width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray
    from torch import Tensor

CHANNELS = {"L": 1, "RGB": 3}  # the PIL modes that have a tensor


def to_float(pixels: Tensor | NDArray[np.uint8]) -> Tensor:
    """Bytes (N, H, W, C), from 0 to 255, to float32 (N, C, H, W) in [−1, 1]. The order in memory stays N, H, W, C.

    Raises:
        ValueError: not bytes, or not of four axes.
    """
    import torch

    pixels = torch.as_tensor(pixels)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        found = f"{pixels.dtype} of shape {tuple(pixels.shape)}"
        raise ValueError(f"expected bytes, torch.uint8 of shape (images, height, width, channels), not {found}")
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, C, H, W)


def tensors(dataset: Dataset) -> dict[str, Tensor]:
    """Turn a whole dataset, whose images are all of one size and of one mode, L or RGB, into tensors.

    Returns:
        `image`, float32 (N, C, H, W), where -1 is black and 1 is white; `label`, int64 (N,), if the dataset has it.

    Raises:
        ValueError: the dataset is empty, has no image column, or a row does not fit the first one (the row is named).
    """
    import torch

    if "image" not in dataset.column_names:
        raise ValueError(f"the dataset has no column `image`; it has {_listed(dataset.column_names)}")
    if len(dataset) == 0:
        raise ValueError("the dataset is empty: there is no image to turn into a tensor")
    plain = dataset.with_format(None)
    result = {"image": to_float(_pixels(plain)).contiguous()}  # (N, C, H, W)
    if "label" in dataset.column_names:
        result["label"] = torch.tensor(_labels(plain), dtype=torch.int64)  # (N,)
    return result


def _pixels(dataset: Dataset) -> NDArray[np.uint8]:
    """Stack the images as bytes, (N, H, W, C), and name the first row that cannot be stacked."""
    import numpy as np

    images = dataset.select_columns("image")
    arrays, first = [], None
    for row in range(len(images)):
        try:
            image = images[row]["image"]
        except Exception as error:  # the decoders raise errors of many kinds
            raise ValueError(f"row {row}: the image cannot be decoded ({error})") from error
        if getattr(image, "mode", None) not in CHANNELS:
            found = f"an image of mode {image.mode}" if hasattr(image, "mode") else f"a {type(image).__name__}"
            raise ValueError(f"row {row}: expected a PIL image of mode L or RGB, found {found}")
        kind = (image.mode, image.size)
        first = first or kind
        if kind != first:
            raise ValueError(
                f"row {row}: the image is {_kind(*kind)}, but row 0 is {_kind(*first)}; "
                "resize and convert all images to one size and mode first"
            )
        arrays.append(np.asarray(image).reshape(image.height, image.width, CHANNELS[image.mode]))  # (H, W, C)
    return np.stack(arrays)


def _labels(dataset: Dataset) -> list[int]:
    """Return the labels, after a check that each is a whole number."""
    labels = list(dataset["label"])
    for row, label in enumerate(labels):
        if not isinstance(label, int):
            raise ValueError(
                f"row {row}: the label is {label!r}, not a class number; "
                'encode the column with `dataset.class_encode_column("label")`'
            )
    return labels


def _kind(mode: str, size: tuple[int, int]) -> str:
    width, height = size
    return f"{height}×{width} pixels of mode {mode}"


def _listed(columns: list[str]) -> str:
    return ", ".join(f"`{column}`" for column in columns) or "no column at all"
