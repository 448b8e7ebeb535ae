"""What files beside images say of them: metadata, one row for each image, and captions, one text file for each image.

All are UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ditbook.data import columns

CAPTIONS = (".txt", ".caption")  # of the text file beside an image
EXAMPLE = '{"file_name": "a.png", "caption": "a red star"}'


class Row(NamedTuple):
    """A row of metadata: file and line, for messages, and its values by column."""

    where: str
    values: dict[str, Any]


def read(files: Iterable[Path]) -> dict[Path, Row]:
    """The rows of metadata files by the path of the image, which `file_name` gives relative to the file.

    Raises:
        ValueError: a file or a row that cannot be read, a row without `file_name`, or a second row of an image.
    """
    rows: dict[Path, Row] = {}
    for file in files:
        for place, values in READERS[file.name.lower()](file):
            where = f"{file}, {place}"
            name = values.pop("file_name", None)
            if not isinstance(name, str):
                found = _short(values if name is None else {"file_name": name, **values})
                raise ValueError(
                    f"{where}: expected a `file_name`, an image's path relative to this file; found {found}"
                )
            path = normal(file.parent / name)
            if path in rows:
                raise ValueError(
                    f"{where}: {name} has a row already, {rows[path].where}; give an image one row, and a list where "
                    "it has several captions"
                )
            rows[path] = Row(where, values)
    return rows


def table(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns `label` and `caption` of rows, whichever apply; where one image has a list of captions, all have.

    Raises:
        ValueError: a value that is missing or of another type than it should be.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    try:
        kept = columns.chosen(names, ("label", "caption"))
    except ValueError as error:
        raise ValueError(f"{rows[0].where} and others: {error}") from error
    columns.report({"image": "file_name", **kept}, names)
    found = {name: [row.values.get(column) for row in rows] for name, column in kept.items()}
    for name, values in found.items():
        for row, value in zip(rows, values, strict=True):
            if name == "label" and not (type(value) is type(values[0]) in (int, str) and str(value).strip()):
                expected = f"a word in each row or a whole number in each; {rows[0].where} has {_short(values[0])}"
            elif name == "caption" and not _is_caption(value):
                expected = 'a string or a list of strings in each row, "" for no caption'
            else:
                continue
            raise ValueError(f"{row.where}: `{kept[name]}` is {_short(value)}; expected {expected}")
    if any(isinstance(value, list) for value in found.get("caption", ())):
        found["caption"] = [[value] if isinstance(value, str) else value for value in found["caption"]]
    return found


def _is_caption(value: Any) -> bool:
    return all(isinstance(one, str) for one in (value if isinstance(value, list) and value else [value]))


def beside(images: Sequence[Path], files: Iterable[Path]) -> tuple[list[Any], set[Path]]:
    """The captions in those of the files that have the images' names, `a.txt` beside `a.png`, and which these are.

    Each line that is not empty is a caption. Where one image has several, all have lists.

    Returns:
        The captions in the order of the images, or none if no image has such a file; and the files.

    Raises:
        ValueError: some images have no such file or have two, or a file that is not UTF-8.

    Source: lucidrains' DALLE-pytorch reads lines as captions, of which training takes one at random.
    """
    by_name = defaultdict(list)
    for file in files:
        if file.suffix.lower() in CAPTIONS:
            by_name[_stem(file)].append(file)
    texts = [by_name.get(_stem(image), []) for image in images]
    if not any(texts):
        return [], set()
    captions = []
    for image, found in zip(images, texts, strict=True):
        if len(found) != 1:
            number = "no caption" if not found else f"{len(found)} files of captions"
            raise ValueError(
                f"{image} has {number}, others have one file, {' or '.join(CAPTIONS)}: describe all images or none; "
                "an empty file stands for no caption"
            )
        lines = [line.strip() for line in text(found[0]).split("\n")]
        captions.append([line for line in lines if line] or [""])
    one = all(len(lines) == 1 for lines in captions)
    return [lines[0] for lines in captions] if one else captions, {file for found in texts for file in found}


def text(file: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: it is not UTF-8.
    """
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}, line {line}: not UTF-8 ({error.reason}); save the file in UTF-8") from error


def _stem(path: Path) -> str:
    """The path without its suffix, in NFC."""
    return unicodedata.normalize("NFC", str(path.with_suffix("")))


def normal(path: Path) -> Path:
    """The path by which the rows of `read` are found: without `..`, in NFC, and with its suffix in small letters."""
    name, suffix = os.path.splitext(os.path.normpath(path))
    return Path(unicodedata.normalize("NFC", name + suffix.lower()))


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text(file).split("\n"), 1):  # not splitlines: U+2028 may stand in a caption
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: no JSON ({error}); expected a line as {EXAMPLE}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{file}, line {number}: {_short(values)} is no object; expected a line as {EXAMPLE}")
        yield f"line {number}", values


def _csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text(file), newline=""), strict=True)
    lines = reader.reader  # which counts them, where an error or an empty line keeps `reader` from it
    rows = []
    try:
        if "file_name" not in (header := reader.fieldnames or ()) and any(";" in name for name in header):
            raise csv.Error(f"the columns are separated by semicolons, {_short(';'.join(header))}; commas are expected")
        for row in reader:
            if None in row or None in row.values():
                raise csv.Error(
                    f"as many fields as the header names, {len(header)}, are expected; "
                    "put a text that holds a comma in quotes"
                )
            rows.append((f"line {lines.line_num}", row))
    except csv.Error as error:
        raise ValueError(f"{file}, line {lines.line_num}: {error}") from error
    label = columns.chosen(header, ("label",)).get("label")
    if label is not None and all(row[label].isdecimal() for _, row in rows):
        rows = [(place, row | {label: int(row[label])}) for place, row in rows]
    yield from rows


def _parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import ArrowInvalid, parquet

    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a readable parquet file ({error})") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows))


READERS: dict[str, Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]] = {
    "metadata.jsonl": _json_lines,
    "metadata.csv": _csv,
    "metadata.parquet": _parquet,
}


def _short(value: Any) -> str:
    return f"{value!r:.80}"
