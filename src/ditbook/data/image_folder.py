"""A folder of images as a dataset: subfolders are classes, and a `metadata.jsonl` beside the images describes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
METADATA = "metadata.jsonl"


def split_folder(folder: Path, split: str) -> Path:
    """The subfolder of a split; a folder without subfolders for splits is itself "train".

    Raises:
        ValueError: there is no such subfolder.
    """
    if (folder / split).is_dir():
        return folder / split
    if split == "train" and not any((folder / other).is_dir() for other in ("validation", "test")):
        return folder
    raise ValueError(f"{folder} has no subfolder {split!r}, so it has no such split")


def load(folder: Path, columns: Iterable[str], verify: bool) -> Dataset:
    """Read the images of a folder, all with metadata or all without.

    Without, the name of the subfolder is the label. With, the columns are those of the metadata, as
    `datasets.load_dataset("imagefolder")` reads it: a line of JSON for each image, whose `file_name` is relative to
    the metadata file. Names of subfolders are then no labels.

    Args:
        folder: where the images are, in subfolders of any depth.
        columns: those of the metadata to keep.
        verify: decode each image once, to find those that cannot be read.

    Returns:
        A dataset with the column `image`, and `label` (`ClassLabel`) or those of the metadata.

    Raises:
        ValueError: no image, an image that cannot be read (its path is named), an empty subfolder, images beside
            subfolders, or metadata that do not fit the images.
    """
    from datasets import Dataset, Image

    metadata = _metadata(folder)
    if metadata:
        paths = _images(folder.rglob("*"))
        table: dict[str, Any] = _described(paths, metadata, columns)
        features: dict[str, Any] = {}
    else:
        paths, table, features = _classes(folder)
    if not paths:
        raise ValueError(f"{folder} is empty: it holds no image ({', '.join(SUFFIXES)}), nor do its subfolders")
    for path in paths if verify else ():
        _verify(path)
    dataset = Dataset.from_dict({"image": [str(path) for path in paths], **table})
    for name, feature in {"image": Image(), **features}.items():
        dataset = dataset.cast_column(name, feature)
    return dataset


def _classes(folder: Path) -> tuple[list[Path], dict[str, list], dict[str, Any]]:
    """The images of a folder without metadata, and their labels if it has subfolders."""
    from datasets import ClassLabel

    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    loose = _images(folder.glob("*"))
    if not classes:
        return loose, {}, {}
    if loose:
        raise ValueError(
            f"{folder} holds images ({loose[0].name}, …) beside subfolders ({classes[0].name}, …): "
            "put every image in the subfolder of its class, or none"
        )
    groups = [_images(child.rglob("*")) for child in classes]
    for child, group in zip(classes, groups, strict=True):
        if not group:
            raise ValueError(f"{child} is empty: each subfolder is a class and must hold images")
    labels = [number for number, group in enumerate(groups) for _ in group]
    paths = [path for group in groups for path in group]
    return paths, {"label": labels}, {"label": ClassLabel(names=[child.name for child in classes])}


def _metadata(folder: Path) -> dict[Path, dict[str, Any]]:
    """What the metadata files say of each image, by its path."""
    for other in ("metadata.csv", "metadata.parquet"):
        if found := next(folder.rglob(other), None):
            raise ValueError(f"{found} is not read: write it as {METADATA}, one line of JSON for each image")
    rows = {}
    for file in sorted(folder.rglob(METADATA)):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                rows[_normal(file.parent / row["file_name"])] = row
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}, line {number}: expected JSON with a `file_name`, found {line!r}") from error
    return rows


def _described(paths: list[Path], metadata: dict[Path, dict[str, Any]], columns: Iterable[str]) -> dict[str, list[Any]]:
    """The columns of the metadata in the order of the images. Where one image has a list, all have."""
    normal = [_normal(path) for path in paths]
    for path in normal:
        if path not in metadata:
            raise ValueError(f"{path} has no line in {METADATA}: describe all images or none")
    for path in metadata.keys() - set(normal):
        raise ValueError(f"{METADATA} describes {path}, which is no image of the folder")
    rows = [metadata[path] for path in normal]
    table = {column: [row.get(column) for row in rows] for column in columns if any(column in row for row in rows)}
    for column, values in table.items():
        if any(isinstance(value, list) for value in values):
            table[column] = [[value] if isinstance(value, str) else value for value in values]
    return table


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _verify(path: Path) -> None:
    """Decode an image, and name it if that fails."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # the decoders raise errors of many kinds
        raise ValueError(f"{path} is not a readable image ({error}); replace or remove it") from error
