"""Files of tensors: safetensors, written whole or not at all, that describe themselves and notice damage.

The header of a file holds its format, the caller's metadata as JSON, and two SHA-256 sums: of that JSON, and of the
names, types, shapes and bytes of the tensors.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "ditbook-1"


def save(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata. The old file, if any, stays until the new one is complete.

    Args:
        path: ends in `.safetensors`; missing folders are made.
        tensors: by name.
        metadata: anything JSON can hold, by name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dict(metadata), sort_keys=True)
    header = {"format": FORMAT, "ditbook": text, "sha256": _sum_of(tensors), "metadata sha256": _sum_of_text(text)}
    try:
        save_file(tensors, partial, header)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (on the CPU) and metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, not safetensors, not written by this package, or damaged.
    """
    with _opened(path) as (file, header, about):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _sum_of(tensors) != header.get("sha256"):
            raise ValueError(f"{path} is damaged: its tensors are not those that were written (SHA-256 differs)")
        return tensors, about


def metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata alone, in a time that does not depend on the tensors.

    Raises:
        FileNotFoundError, ValueError: as for `load`; damaged tensors are not noticed.
    """
    with _opened(path) as (_, _, about):
        return about


def count(path: str | Path) -> int:
    """Number of values of all tensors, without reading them.

    Raises:
        FileNotFoundError, ValueError: as for `metadata`.
    """
    with _opened(path) as (file, _, _):
        return sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, dict[str, str], dict[str, Any]]]:
    """The open file, its header, and in this the metadata, as they were written."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"{path} was not written by ditbook: its metadata lacks format {FORMAT!r}")
            if _sum_of_text(header.get("ditbook", "")) != header.get("metadata sha256"):
                raise ValueError(f"{path} is damaged: its metadata is not what was written (SHA-256 differs)")
            yield file, header, _object(header["ditbook"], path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error


def _object(text: str, path: str | Path) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has metadata that is no JSON: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} has metadata that is no JSON object: a {type(about).__name__}")
    return about


def _sum_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sum_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
