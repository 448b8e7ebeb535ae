"""A folder of images as a dataset: subfolders are classes, and files beside the images describe them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbook.data import metadata

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SAYING = (*metadata.CAPTIONS, ".csv", ".json", ".jsonl", ".parquet", ".tsv")  # files that may describe images
logger = logging.getLogger(__name__)


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


def load(root: Path, split: str, verify: bool) -> Dataset:
    """Read the images of a split of a folder.

    Labels and captions come from metadata, if there are any: `metadata.jsonl`, a line of JSON for each image, or
    `metadata.csv` or `metadata.parquet`, each anywhere in the folder of the split or directly in `root`. Each row has a
    `file_name`, relative to its file, as for `datasets.load_dataset("imagefolder")`. Names of subfolders are then no
    labels. Without metadata they are. Captions can also stand in text files beside the images, see `metadata.beside`.
    All images are described, or none. Capitals in suffixes and forms of accents make no difference. Files and folders
    whose name begins with a dot are passed over.

    Args:
        root: the folder, or the one above the folders of the splits, see `split_folder`.
        split: which part.
        verify: decode each image once, to find those that cannot be read.

    Returns:
        A dataset with the column `image`, and `label` (`ClassLabel`, or as in the metadata) and `caption`, whichever
        apply. Files that may describe images but were not used are logged.

    Raises:
        ValueError: no image, an image that cannot be read (its path is named), an empty subfolder, images beside
            subfolders, or metadata or captions that cannot be read or do not fit the images (file and line are named).
    """
    from datasets import Dataset, Image

    folder = split_folder(root, split)
    files = _files(folder)
    above = [path for path in sorted(root.iterdir()) if path.is_file()] if folder != root else []
    used = {path for path in (*above, *files) if path.name.lower() in metadata.READERS}
    features: dict[str, Any] = {}
    if used:
        paths = _images(files)
        table = _described(paths, sorted(used), _files(root) if folder != root else files)
    else:
        paths, table, features = _classes(folder, _images(files))
    if not paths:
        raise ValueError(f"{folder} is empty: it holds no image ({', '.join(SUFFIXES)}), nor do its subfolders")
    captions, beside = metadata.beside(paths, files)
    if captions and "caption" in table:
        raise ValueError(f"{min(used)} and {min(beside)} both hold captions: remove one of the two kinds")
    if captions:
        table["caption"] = captions
    used |= beside
    _report([path for path in (*above, *files) if path.suffix.lower() in SAYING and path not in used])
    for path in paths if verify else ():
        _verify(path)
    dataset = Dataset.from_dict({"image": [str(path) for path in paths], **table})
    for name, feature in {"image": Image(), **features}.items():
        dataset = dataset.cast_column(name, feature)
    return dataset


def _classes(folder: Path, images: list[Path]) -> tuple[list[Path], dict[str, list], dict[str, Any]]:
    """The images of a folder without metadata, and their labels if it has subfolders."""
    from datasets import ClassLabel

    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not classes:
        return images, {}, {}
    loose = [path for path in images if path.parent == folder]
    if loose:
        raise ValueError(
            f"{folder} holds images ({loose[0].name}, …) beside subfolders ({classes[0].name}, …): "
            "put every image in the subfolder of its class, or none"
        )
    number = {child.name: number for number, child in enumerate(classes)}
    labels = [number[path.relative_to(folder).parts[0]] for path in images]
    used = set(labels)
    for child in classes:
        if number[child.name] not in used:
            raise ValueError(f"{child} is empty: each subfolder is a class and must hold images of its own")
    return images, {"label": labels}, {"label": ClassLabel(names=[child.name for child in classes])}


def _described(paths: list[Path], files: list[Path], everywhere: list[Path]) -> dict[str, list[Any]]:
    """The columns of metadata files in the order of a split's images; `everywhere` are the files of all splits."""
    normal = [metadata.normal(path) for path in paths]
    by_name: dict[Path, Path] = {}
    for path, key in zip(paths, normal, strict=True):
        if (twin := by_name.setdefault(key, path)) is not path:
            raise ValueError(
                f"{twin} and {path} differ in the suffix's capitals or in forms of accents alone: rename one"
            )
    rows = metadata.read(files)
    known = {*normal, *map(metadata.normal, _images(everywhere))}
    for path, row in rows.items():
        if path not in known:
            raise ValueError(f"{row.where}: the folder has no image {path}; `file_name` is relative to this file")
    for path in normal:
        if path not in rows:
            raise ValueError(f"{path} has no row in {', '.join(map(str, files))}: describe all images or none")
    return metadata.table([rows[path] for path in normal])


def _report(unused: list[Path]) -> None:
    """Log files that may describe images but were not used."""
    if unused:
        names = ", ".join(str(path) for path in unused[:3]) + (", …" if len(unused) > 3 else "")
        logger.warning(
            "%d files that belong to no image are not read: %s; captions stand in %s or in a text file of the name of "
            "each image, %s",
            *(len(unused), names, ", ".join(metadata.READERS), " or ".join(metadata.CAPTIONS)),
        )


def _files(folder: Path) -> list[Path]:
    """All files of a folder, in their order, but hidden ones. A link to a folder that it lies in is not followed."""
    found = []
    around: dict[str, frozenset[str]] = {}  # of each folder: itself and those it lies in, links resolved
    for where, folders, names in os.walk(folder, followlinks=True):
        real, outer = os.path.realpath(where), around.get(os.path.dirname(where), frozenset())
        if real in outer:
            folders.clear()
            continue
        around[where] = outer | {real}
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _images(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix.lower() in SUFFIXES]


def _verify(path: Path) -> None:
    """Decode an image, and name it if that fails."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # the decoders raise errors of many kinds
        raise ValueError(f"{path} is not a readable image ({error}); replace or remove it") from error
