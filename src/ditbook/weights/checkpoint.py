"""Files of tensors: safetensors, written whole or not at all, with what they are in their metadata."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            partial,
            {"format": FORMAT, "ditbook": json.dumps(dict(metadata), sort_keys=True)},
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (on the CPU) and metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, not safetensors, or not written by this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} was not written by ditbook: its metadata lacks format {FORMAT!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["ditbook"])  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error
