"""Data: every loader returns a `datasets.Dataset` with the columns `image`, `label`, `caption`, whichever apply.

So data are exchanged by changing one line. `tensors` and `batches` turn such a dataset into what a model takes.
Letters: `N` images, `C H W` channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset, IterableDataset
    from numpy.typing import NDArray
    from torch import Tensor

CHANNELS = {"L": 1, "RGB": 3}  # the PIL modes that have a tensor
LARGEST = 2 * 2**30  # bytes of the images that `tensors` returns: 2 GiB, 170,000 color images of 32×32 pixels
ADVICE = "make all images one size and mode with `user_images.prepare`"


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
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # (N, C, H, W), in place to save memory


def tensors(dataset: Dataset) -> dict[str, Tensor]:
    """Turn a whole dataset, whose images are all of one size and of one mode, L or RGB, into tensors.

    Returns:
        `image`, float32 (N, C, H, W), where -1 is black and 1 is white; `label`, int64 (N,), if the dataset has it.

    Raises:
        ValueError: the dataset is a stream, is empty, has no image column, would make more than `LARGEST` bytes, or a
            row does not fit the first one (the row is named).
    """
    import torch

    if not hasattr(dataset, "__len__"):
        raise ValueError("the dataset is a stream, which may not fit into memory: take its rows from `data.batches`")
    if "image" not in dataset.column_names:
        raise ValueError(f"the dataset has no column `image`; it has {_listed(dataset.column_names)}")
    if len(dataset) == 0:
        raise ValueError("the dataset is empty: there is no image to turn into a tensor")
    plain = dataset.with_format(None)
    result = {"image": to_float(_stack(_decoded(plain.select_columns("image")), len(plain))).contiguous()}
    if "label" in dataset.column_names:
        result["label"] = torch.tensor(_labels(plain["label"]), dtype=torch.int64)  # (N,)
    return result


def batches(
    dataset: Dataset | IterableDataset, batch_size: int, generator: torch.Generator
) -> Iterator[dict[str, Any]]:
    """Batches of a dataset of any size, pass after pass without an end, each pass in another order.

    Of a stream the shards are shuffled, which are the files of a folder or the row groups of parquet files, see
    `user_images.load`, and then the rows among the 1,000 that are read next. The last rows of a pass, fewer than a
    batch, are left out of it.

    Args:
        dataset: images of one size and of one mode, L or RGB, as `user_images.prepare` makes them.
        batch_size: B, the rows of a batch.
        generator: where the random numbers come from.

    Yields:
        `image`, float32 (B, C, H, W) in [−1, 1]; and, if the dataset has them, `label`, int64 (B,), and `caption`, a
        list of B strings, see `one_caption`.

    Raises:
        ValueError: the dataset has fewer rows than a batch, or a row that does not fit the first one of its batch.
    """
    import torch

    from ditbook import rng

    dataset = dataset.with_format(None)  # before the shuffling, which a change of format would do again
    full = True
    while full:
        full = False
        seed = int(rng.randint(2**31, (), generator, torch.device("cpu")))
        for rows in dataset.shuffle(seed=seed).iter(batch_size, drop_last_batch=True):
            full = True
            batch: dict[str, Any] = {"image": to_float(_stack(enumerate(rows["image"]), batch_size)).contiguous()}
            if "label" in rows:
                batch["label"] = torch.tensor(_labels(rows["label"]), dtype=torch.int64)
            if "caption" in rows:
                batch["caption"] = [one_caption({"caption": row}, generator) for row in rows["caption"]]
            yield batch
    raise ValueError(f"the dataset has fewer rows than a batch of {batch_size}")


def one_caption(row: Mapping[str, Any], generator: torch.Generator) -> str:
    """The caption of a row, or one of its captions, each equally likely: another one at each call, as in training.

    Raises:
        ValueError: the row has an empty list of captions, or none.
    """
    import torch

    from ditbook import rng

    captions = row["caption"]
    if isinstance(captions, str):
        return captions
    if not captions:
        raise ValueError(f"the row has no caption but {captions!r}")
    return captions[int(rng.randint(len(captions), (), generator, torch.device("cpu")))]


def _decoded(images: Dataset) -> Iterator[tuple[int, Any]]:
    """Each row's number and image; the row of an image that cannot be decoded is named."""
    for row in range(len(images)):
        try:
            yield row, images[row]["image"]
        except Exception as error:  # the decoders raise errors of many kinds
            raise ValueError(f"row {row}: the image cannot be decoded ({error})") from error


def _stack(images: Iterable[tuple[int, Any]], count: int) -> NDArray[np.uint8]:
    """Stack `count` images as bytes, (N, H, W, C), and name the first row that cannot be stacked."""
    import numpy as np

    arrays, first = [], None
    for row, image in images:
        if getattr(image, "mode", None) not in CHANNELS:
            found = f"an image of mode {image.mode}" if hasattr(image, "mode") else f"a {type(image).__name__}"
            raise ValueError(f"row {row}: expected a PIL image of mode L or RGB, found {found}; {ADVICE}")
        kind = (image.mode, image.size)
        first = first or kind
        if kind != first:
            raise ValueError(f"row {row}: the image is {_kind(*kind)}, but row 0 is {_kind(*first)}; {ADVICE}")
        arrays.append(np.asarray(image).reshape(image.height, image.width, CHANNELS[image.mode]))  # (H, W, C)
        if (size := 4 * count * arrays[0].size) > LARGEST:
            raise ValueError(
                f"{count} images of {_kind(*kind)} make a tensor of {size / 2**30:.1f} GiB, more than "
                f"{LARGEST / 2**30:.1f}: take smaller or fewer images, or stream them by `data.batches`"
            )
    return np.stack(arrays)


def _labels(labels: Iterable[Any]) -> list[int]:
    """Return the labels, after a check that each is a whole number."""
    labels = list(labels)
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
