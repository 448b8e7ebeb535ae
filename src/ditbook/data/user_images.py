"""The reader's own images, from a folder, parquet files or the Hugging Face hub, made as models take them.

`load` reads them, with the columns of the bundled data: `image`, `label`, `caption`, whichever apply. `prepare` gives
all images one size and one mode. Then `data.tensors` takes all of them at once, or `data.batches` one batch at a time.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ditbook.data import columns, hub, image_folder, images

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, IterableDataset
    from PIL.Image import Image

Data = TypeVar("Data", "Dataset", "IterableDataset")

SHARDS = 10_000  # of a folder that is streamed: `datasets` copies their list for each pass, 0.2 ms for each of them
LARGEST_SHARD = 20  # rows, so that the 1,000 that are shuffled come from 50 places of a folder of any size
logger = logging.getLogger(__name__)


def load(
    source: str | Path | Sequence[str | Path], split: str = "train", *, streaming: bool = False
) -> Dataset | IterableDataset:
    """Load images from a folder, from parquet files, or from the Hugging Face hub, tried in that order.

    Args:
        source: a folder with one subfolder of images per class, or images alone (no labels), or images and what
            describes them, `metadata.jsonl` or a text file beside each (see `image_folder.load`), or, where the folder
            has a subfolder named like the split, that subfolder; the path of a parquet file, or several; or the id of a
            dataset on the hub, "ylecun/mnist".
        split: which part of a folder or of a dataset on the hub. A parquet file is taken as it is.
        streaming: return an `IterableDataset`, which reads a row when it is used: for what is larger than memory. Its
            `shuffle` mixes the files of a folder, up to 20 at a time where they are more than 10,000, or the row groups
            of parquet files, before they are read.

    Raises:
        ConnectionError: no connection to the hub within 3 seconds.
        FileNotFoundError: the folder or a parquet file does not exist.
        ValueError: there is no image, an image or file cannot be read (its path is named; of a stream later, when it
            is used), a folder is ambiguous or lacks the split, the columns do not fit (see `standard_columns`), or one
            parquet file has other columns than the first (it is named).
    """
    if not isinstance(source, str | Path):
        return standard_columns(_from_parquet([Path(path) for path in source], streaming))
    path = Path(source).expanduser()
    if path.is_dir():
        dataset = standard_columns(image_folder.load(path, split, verify=not streaming))
        return _stream_of_files(dataset) if streaming else dataset
    if path.suffix == ".parquet":
        return standard_columns(_from_parquet([path], streaming))
    if path.is_file():
        raise ValueError(f"{path} is a file; expected a folder of images or a file that ends in .parquet")
    if path.is_absolute() or isinstance(source, Path) or source.startswith("."):
        raise FileNotFoundError(f"there is no folder {path}")
    return standard_columns(hub.load(str(source), split, streaming))


def standard_columns(dataset: Data) -> Data:
    """Give the columns the names `image`, `label`, `caption`, whichever apply, and drop all others.

    The other names that are understood are `columns.OTHER_NAMES`; which columns are dropped is logged. A caption is a
    string, or a list of strings of which `data.one_caption` chooses one. Labels that are words become the numbers of
    the sorted words, which stay in `dataset.features["label"].names`. So a split that lacks a class has other numbers:
    compare the names, or cast both with `dataset.cast_column("label", ClassLabel(names=…))` before. A stream of such
    labels, but that of a folder or of parquet files, is read once for its words, which is logged. A stream that does
    not know the types of its columns has those of its first row.

    Raises:
        ValueError: the dataset is empty, has no image, has two columns that could be the same one, captions that are no
            text, or, of a stream when it is used, a row whose values are of other types than those of the first one.
    """
    import pyarrow
    from datasets import Dataset, Features, Image

    # A stream may know neither its columns nor their types: its first row has them.
    first: dict[str, Any] = next(iter(dataset), {}) if dataset.features is None else {}
    names: list[str] = dataset.column_names or list(first)
    kept = columns.chosen(names)
    if "image" not in kept:
        raise ValueError(
            f"no column holds images: one must be named `image`; the columns found are {columns.listed(names)}"
        )
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError(f"the dataset is empty: it has the columns {columns.listed(names)}, but no row")
    columns.report(kept, names)
    dataset = dataset.select_columns(list(kept.values()))
    for name, column in kept.items():
        dataset = dataset if name == column else dataset.rename_column(column, name)
    if dataset.features is None:
        row = {name: first[column] for name, column in kept.items() if name != "image"}
        schema = pyarrow.schema({name: pyarrow.scalar(value).type for name, value in _plain(row).items()})
        features = Features({"image": Image(), **Features.from_arrow_schema(schema)})
        dataset = dataset.map(_of_types, fn_kwargs={"schema": schema}).cast(features)
    return _standard_types(dataset)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row with values of Python's in place of tensors and arrays."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}


def _of_types(row: dict[str, Any], schema: pyarrow.Schema) -> dict[str, Any]:
    """The columns of the schema, after a check that their values are of its types, or None."""
    import pyarrow

    row = _plain({name: row[name] for name in schema.names})
    for name, kind in zip(schema.names, schema.types, strict=True):
        found = pyarrow.scalar(row[name] or None if pyarrow.types.is_list(kind) else row[name]).type
        if found != kind and pyarrow.null() not in (found, kind):
            raise ValueError(
                f"the column `{name}` mixes types: {row[name]!r:.80} is {found}, in the first row it is {kind}; give "
                "all rows the type of the first"
            )
    return row


def _standard_types(dataset: Data) -> Data:
    """Images as `Image`, labels as numbers, captions as text."""
    from datasets import ClassLabel, Dataset, Image

    features = dataset.features
    if not isinstance(features["image"], Image):
        try:
            dataset = dataset.cast_column("image", Image())
        except (TypeError, NotImplementedError, ValueError) as error:  # pyarrow's errors are kinds of the last two
            raise ValueError(f"the column `image` holds {features['image']}, not images") from error
    if "caption" in features:
        kind = getattr(features["caption"], "feature", features["caption"])  # of a list, what is in it
        if getattr(kind, "dtype", None) not in ("string", "large_string", "null"):
            raise ValueError(
                f"the column `caption` holds {features['caption']}; expected a string or a list of strings"
            )
    if "label" in features and _is_text(features["label"]):
        if isinstance(dataset, Dataset):
            words = set(dataset.unique("label"))
        else:
            logger.warning("labels are words: the whole stream is read once for them, before its first row is used")
            words = {row["label"] for row in dataset.select_columns(["label"])}
        dataset = dataset.cast_column("label", ClassLabel(names=sorted(words - {None})))
    return dataset


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def prepare(dataset: Data, size: int, mode: str = "RGB") -> Data:
    """Give all images one size and one mode, as `data.tensors` and `data.batches` need them.

    Each image is turned as its EXIF orientation says, what is transparent becomes white, any mode becomes `mode`, the
    shorter side is resized to `size` with antialiasing, and the ends of the longer one are cut off: see
    `images.prepare`. One line is logged that counts what was done, if anything was. A stream is prepared
    when it is used.

    Args:
        dataset: what `load` returns, or any dataset that `standard_columns` accepts; it may be a stream.
        size: height and width of the result in pixels.
        mode: "L", grey, or "RGB".

    Returns:
        The dataset with the standard columns and `changes`, a list of what was done to each image: "turned",
        "converted from CMYK", "reduced" or "enlarged", "cropped".

    Raises:
        ValueError: a size below 1, an unknown mode, or an image that cannot be read or converted (row and file are
            named; of a stream when it is used).

    Source: resizing and cropping as Dhariwal and Nichol 2021 (guided diffusion) and Peebles and Xie 2023 (DiT) do, with
    another antialiased filter.
    """
    from datasets import Dataset, Features, Image, Sequence, Value

    if size < 1:
        raise ValueError(f"the size must be positive, not {size}")
    if mode not in images.MODES:
        raise ValueError(f"no mode {mode!r}; there are {', '.join(images.MODES)}")
    dataset = standard_columns(dataset)
    features = Features({**dataset.features, "image": Image(), "changes": Sequence(Value("string"))})
    settings = {"with_indices": True, "fn_kwargs": {"size": size, "mode": mode}, "features": features}
    dataset = dataset.cast_column("image", Image(decode=False))  # else an image that cannot be read has no name
    if not isinstance(dataset, Dataset):
        return dataset.map(prepare_row, **settings)
    prepared = dataset.map(prepare_row, **settings, load_from_cache_file=False, desc="Preparing images")
    counts = Counter(change for row in prepared["changes"] for change in row)
    if counts:
        said = ", ".join(f"{count} {change}" for change, count in counts.most_common())
        logger.warning("%d images of %d×%d pixels, mode %s: %s", len(prepared), size, size, mode, said)
    return prepared


def prepare_row(row: Mapping[str, Any], number: int, size: int, mode: str) -> dict[str, Any]:
    """Prepare the image of a row, decoded or not, and name it if that fails.

    Returns:
        `image` and `changes`, see `prepare`.

    Raises:
        ValueError: it cannot be read or converted.
    """
    path = row["image"].get("path") if isinstance(row["image"], Mapping) else None
    try:
        image, changes = images.prepare(_open(row["image"]), size, mode)
    except Exception as error:  # the decoders raise errors of many kinds
        raise ValueError(f"row {number}{f' ({path})' if path else ''}: no readable image ({error})") from error
    return {"image": image, "changes": changes}


def _open(value: Any) -> Image:
    """An image from the file or the bytes that a dataset holds."""
    from PIL import Image

    if isinstance(value, Mapping):
        return Image.open(io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"])
    if not isinstance(value, Image.Image):
        raise ValueError(f"expected an image, found a {type(value).__name__}")
    return value


def _from_parquet(paths: list[Path], streaming: bool) -> Dataset | IterableDataset:
    """Read parquet files into memory, past the cache of `datasets`, which can go stale; or as a stream."""
    import datasets
    import pyarrow
    from datasets.table import InMemoryTable
    from pyarrow import parquet

    if not paths:
        raise ValueError("the list of parquet files is empty")
    tables = []
    for path in paths:
        try:
            tables.append(parquet.read_metadata(path) if streaming else parquet.read_table(path))
        except FileNotFoundError:
            raise
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a readable parquet file ({error})") from error
    schemas = [table.schema.to_arrow_schema() if streaming else table.schema for table in tables]
    joined = schemas[0]
    for path, schema in zip(paths, schemas, strict=True):
        try:
            if set(schema.names) != set(joined.names):
                raise pyarrow.ArrowInvalid("other names")
            joined = pyarrow.unify_schemas([joined, schema], promote_options="permissive")
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            here, before = (", ".join(f"{field.name} ({field.type})" for field in each) for each in (schema, joined))
            raise ValueError(f"{path} has the columns {here}; expected those of {paths[0]}: {before}") from error
    if not streaming:
        return datasets.Dataset(InMemoryTable(pyarrow.concat_tables(tables, promote_options="permissive")))
    features = datasets.Features.from_arrow_schema(joined)
    label = columns.chosen(list(features)).get("label")
    if label is not None and _is_text(features[label]):
        words = {
            word for path in paths for word in parquet.read_table(path, columns=[label])[label].unique().to_pylist()
        }
        features[label] = datasets.ClassLabel(names=sorted(words - {None}))
    counts = [table.num_row_groups for table in tables]
    groups = [(str(path), group) for path, count in zip(paths, counts, strict=True) for group in range(count)]
    return datasets.IterableDataset.from_generator(_rows_of_groups, features, {"groups": groups})


def _rows_of_groups(groups: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """The rows of row groups, each given by its file and its number there."""
    from pyarrow import parquet

    for path, group in groups:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:  # else it reads the whole group
            for batch in file.iter_batches(batch_size=100, row_groups=[group]):
                yield from batch.to_pylist()


def _stream_of_files(dataset: Dataset) -> IterableDataset:
    """A dataset of image files as a stream that opens them when it comes to them; few of them are a shard."""
    from datasets import IterableDataset

    size = min(-(-len(dataset) // SHARDS), LARGEST_SHARD)
    slices = {"starts": list(range(0, len(dataset), size)), "size": size, "table": dataset.with_format("arrow")[:]}
    return IterableDataset.from_generator(_rows_of_slices, dataset.features, slices)


def _rows_of_slices(starts: list[int], size: int, table: pyarrow.Table) -> Iterator[dict[str, Any]]:
    for start in starts:
        yield from table.slice(start, size).to_pylist()
