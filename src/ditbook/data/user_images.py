"""The reader's own images: a dataset of the Hugging Face hub, a folder of pictures, or parquet files.

Whatever the source, the columns are those of the bundled data: `image`, `label`, `caption`, whichever apply.
"""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datasets import Dataset

# How other datasets call the three columns.
OTHER_NAMES = {
    "image": ("img", "picture", "photo"),
    "label": ("labels", "fine_label", "coarse_label", "class", "target"),
    "caption": ("text", "captions", "sentence"),
}
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PATIENCE = 2.0  # seconds that the hub has to answer, so that an error comes within 3


def load(source: str | Path | Sequence[str | Path], split: str = "train") -> Dataset:
    """Load images from a folder, from parquet files, or from the Hugging Face hub, looked for in that order.

    Args:
        source: a folder with one subfolder of pictures per class (or pictures alone: no labels), or, where the folder
            has a subfolder named like the split, that subfolder; the path of a parquet file, or several;
            or the id of a dataset on the hub, such as "ylecun/mnist".
        split: which part of a folder or of a dataset on the hub. A parquet file is taken as it is.

    Raises:
        ConnectionError: the hub does not answer within 3 seconds.
        FileNotFoundError: the folder or a parquet file does not exist.
        ValueError: there is no image, a picture or file is corrupt (its path is named), a folder is ambiguous
            or lacks the split, or the columns do not fit (see `standard_columns`).
    """
    if not isinstance(source, str | Path):
        return standard_columns(_from_parquet([Path(path) for path in source]))
    path = Path(source).expanduser()
    if path.is_dir():
        return standard_columns(_from_folder(_split_folder(path, split)))
    if path.suffix == ".parquet":
        return standard_columns(_from_parquet([path]))
    if path.is_file():
        raise ValueError(f"{path} is a file; expected a folder of pictures or a file that ends in .parquet")
    if path.is_absolute() or isinstance(source, Path) or source.startswith("."):
        raise FileNotFoundError(f"there is no folder {path}")
    return standard_columns(_from_hub(str(source), split))


def standard_columns(dataset: Dataset) -> Dataset:
    """Give the columns the names `image`, `label`, `caption`, whichever apply, and drop all others.

    Raises:
        ValueError: the dataset is empty, has no image, or has two columns that could be the same one.
    """
    from datasets import Image

    found = ", ".join(f"`{column}`" for column in dataset.column_names)
    for name, others in OTHER_NAMES.items():
        candidates = [column for column in others if column in dataset.column_names]
        if name in dataset.column_names or not candidates:
            continue
        if len(candidates) > 1:
            raise ValueError(
                f"the {name} could be any of {', '.join(candidates)}; the columns found are {found}. "
                f"Rename one to `{name}` with `dataset.rename_column` and pass the dataset to `standard_columns`"
            )
        dataset = dataset.rename_column(candidates[0], name)
    if "image" not in dataset.column_names:
        raise ValueError(f"no column holds images: one must be named `image`; the columns found are {found or 'none'}")
    if len(dataset) == 0:
        raise ValueError(f"the dataset is empty: it has the columns {found}, but no row")
    if not isinstance(dataset.features["image"], Image):
        try:
            dataset = dataset.cast_column("image", Image())
        except (TypeError, NotImplementedError, ValueError) as error:  # pyarrow's errors are kinds of the last two
            raise ValueError(f"the column `image` holds {dataset.features['image']}, not pictures") from error
    return dataset.select_columns([name for name in OTHER_NAMES if name in dataset.column_names])


def _split_folder(folder: Path, split: str) -> Path:
    """Return the subfolder of a split; a folder without subfolders for splits is itself "train"."""
    if (folder / split).is_dir():
        return folder / split
    if split == "train" and not any((folder / other).is_dir() for other in ("validation", "test")):
        return folder
    raise ValueError(f"{folder} has no subfolder {split!r}, so it has no such split")


def _from_folder(folder: Path) -> Dataset:
    """Read pictures; the name of the subfolder is the label. Each picture is decoded once to find corrupt ones."""
    from datasets import ClassLabel, Dataset, Features, Image

    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    loose = _pictures(folder.glob("*"))
    if loose and classes:
        raise ValueError(
            f"{folder} holds pictures ({loose[0].name}, …) beside subfolders ({classes[0].name}, …): "
            "put every picture in the subfolder of its class, or none"
        )
    groups = [_pictures(child.rglob("*")) for child in classes]
    paths = loose + [path for group in groups for path in group]
    if not paths:
        raise ValueError(f"{folder} is empty: it holds no picture ({', '.join(PICTURES)}), nor do its subfolders")
    for child, group in zip(classes, groups, strict=True):
        if not group:
            raise ValueError(f"{child} is empty: each subfolder is a class and must hold pictures")
    for path in paths:
        _verify(path)
    columns: dict[str, list] = {"image": [str(path) for path in paths]}
    features = Features({"image": Image()})
    if classes:
        columns["label"] = [number for number, group in enumerate(groups) for _ in group]
        features["label"] = ClassLabel(names=[child.name for child in classes])
    return Dataset.from_dict(columns, features=features)


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in PICTURES and not path.name.startswith("."))


def _verify(path: Path) -> None:
    """Decode a picture, and name it if that fails."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
    except Exception as error:  # the decoders raise errors of many kinds
        raise ValueError(f"{path} is not a readable picture ({error}); replace or remove it") from error


def _from_parquet(paths: list[Path]) -> Dataset:
    """Read parquet files into memory, past the cache of `datasets`, which can go stale."""
    import pyarrow
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from pyarrow import parquet

    if not paths:
        raise ValueError("the list of parquet files is empty")
    tables = []
    for path in paths:
        try:
            tables.append(parquet.read_table(path))
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a readable parquet file ({error})") from error
    return Dataset(InMemoryTable(pyarrow.concat_tables(tables)))


def _from_hub(name: str, split: str) -> Dataset:
    """Download a dataset, but only once the hub has answered: `datasets` alone tries for half a minute."""
    import datasets

    message = (
        f"cannot reach the Hugging Face hub to load {name!r} (and no folder has that name). "
        "Without a network, use the digits that come with the package: `ditbook.data.digits.load()`"
    )
    if not datasets.config.HF_HUB_OFFLINE and not _hub_answers():
        raise ConnectionError(message)
    try:
        return datasets.load_dataset(name, split=split)
    except ConnectionError as error:
        raise ConnectionError(message) from error


def _hub_answers() -> bool:
    """Say whether the hub, or the proxy on the way to it, takes a connection within `PATIENCE`."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    address = urllib.request.getproxies().get("https", address)
    parts = urlsplit(address if "//" in address else "//" + address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, port), timeout=PATIENCE).close()
        except OSError:
            return
        answered.set()

    # A thread, because looking up a name takes no timeout, and each address of a name would get one of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()
