"""Images as latents on disk: encoded once, in shards, and read while a DiT trains on them.

A folder of latents holds `latents-000000.safetensors`, …, each with the same number of rows but the last, `about.json`,
and the autoencoder itself. A row is mean and deviation of the latent of an image, and of the mirrored image, so that
noise and mirror image are drawn anew in each step, and the label if there is one.
Letters: `B` batch, `Z h w` channels, height and width of a latent.
"""

import json
import logging
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from ditbook import data, weights
from ditbook.convert import autoencoder as layout
from ditbook.data import user_images
from ditbook.models.autoencoder import Autoencoder
from ditbook.weights import checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image

ABOUT, AUTOENCODER = "about.json", "autoencoder.safetensors"
MODES = {1: "L", 3: "RGB"}
logger = logging.getLogger(__name__)


def encode(
    source: str,
    out: str | Path,
    *,
    autoencoder: str,
    size: int,
    split: str = "train",
    device: str = "cpu",
    batch_size: int = 32,
    rows: int = 1024,
    rank: int = 0,
    processes: int = 1,
) -> int:
    """Encode the images of a source. Stopped and started again it goes on; each process makes its own shards.

    Args:
        source: as for `user_images.load`: a folder, a parquet file or a dataset on the hub.
        out: the folder of latents.
        autoencoder: trained weights, a weight file, or a folder in diffusers' layout.
        size: side of the square that images are made.
        split: of the source.
        device: where images are encoded.
        batch_size: images at once.
        rows: of a shard.
        rank: of this process.
        processes: their number; it may be another when encoding goes on.

    Returns:
        The number of rows of all processes together.

    Raises:
        ValueError: bad arguments, an image that cannot be read (its row is named), or a folder of other latents.
        ConnectionError, FileNotFoundError: as for `user_images.load`.
    """
    folder, model = Path(out), load_autoencoder(autoencoder).to(device)
    if min(size, batch_size, rows) < 1 or size % model.config.factor:
        raise ValueError(f"size must be positive and divisible by {model.config.factor}, rows and batches positive")
    stream = user_images.load(source, split, streaming=True)
    about = {"source": str(source), "split": split, "size": size, "rows of a shard": rows, "autoencoder": autoencoder}
    total, shard = 0, []
    for total, image in enumerate(tqdm(_undecoded(stream), unit=" images", disable=None if rank == 0 else True), 1):
        number = (total - 1) // rows
        if number % processes == rank:
            shard.append((total - 1, image))
        if shard and total == (number + 1) * rows:
            _write(folder, number, shard, model, about, batch_size)
            shard = []
    if shard:
        _write(folder, (total - 1) // rows, shard, model, about, batch_size)
    if total == 0:
        raise ValueError(f"{source} holds no image")
    if rank == 0:
        save_autoencoder(model, folder / AUTOENCODER)
    partial = folder / f"{ABOUT}.{os.getpid()}"
    partial.write_text(json.dumps(about | {"rows": total}), encoding="utf-8")
    os.replace(partial, folder / ABOUT)
    return total


def _undecoded(stream: Any) -> Iterator[dict[str, Any]]:
    """Rows whose images are still bytes or paths: what another process encodes, or is encoded already, costs little."""
    from datasets import Image

    if stream.features is None:
        stream = stream._resolve_features()
    return iter(stream.cast_column("image", Image(decode=False)))


def _write(
    folder: Path,
    number: int,
    shard: list[tuple[int, dict[str, Any]]],
    model: Autoencoder,
    about: dict[str, Any],
    batch_size: int,
) -> None:
    """Encode a shard and write it, unless it is there already, of the same images and undamaged."""
    path, content = _shard(folder, number), _sum_of(shard)
    try:
        before = checkpoint.load(path)[1]
    except FileNotFoundError:
        before = None
    except ValueError as error:
        logger.warning("%s; it is encoded again", error)
        before = None
    if before is not None:
        for key, value in about.items():
            if before.get(key) != value:
                raise ValueError(f"{path} was encoded with {key} {before.get(key)!r}, not {value!r}")
        if before.get("content") == content:
            return
        logger.warning("%s: the images of the source are others now; it is encoded again", path)
    parts = [_encoded(shard[k : k + batch_size], model, about["size"]) for k in range(0, len(shard), batch_size)]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    checkpoint.save(path, tensors, about | {"content": content})


def _sum_of(shard: list[tuple[int, dict[str, Any]]]) -> str:
    """SHA-256 of the names, bytes and labels of rows, by which a source is known again that has changed since."""
    rows = [(Path(row["image"]["path"] or "").name, row["image"]["bytes"], row.get("label")) for _, row in shard]
    return sha256(repr(rows).encode()).hexdigest()


@torch.no_grad()
def _encoded(rows: list[tuple[int, dict[str, Any]]], model: Autoencoder, size: int) -> dict[str, Tensor]:
    """Latents of some rows, float16, and their labels."""
    mode = MODES[model.config.channels]
    pixels = torch.stack([_pixels(*row, size, mode) for row in rows])
    images = data.to_float(pixels).to(next(model.parameters()).device)
    found: dict[str, Tensor] = {}
    for name, x in (("", images), ("mirrored ", images.flip(-1))):
        mean, std = model.encode(x)
        found |= {f"{name}mean": mean.half().cpu(), f"{name}std": std.half().cpu()}
    if "label" in rows[0][1]:
        found["label"] = torch.tensor([row["label"] for _, row in rows])
    return found


def _pixels(number: int, row: dict[str, Any], size: int, mode: str) -> Tensor:
    """The prepared image of a row as bytes, (size, size, C)."""
    import numpy as np

    image: Image = user_images.prepare_row(row, number, size, mode)["image"]
    return torch.from_numpy(np.array(image).reshape(size, size, -1))


def load_autoencoder(name: str) -> Autoencoder:
    """Trained weights, a weight file, or a folder in diffusers' layout, in evaluation mode.

    Raises:
        ValueError: no such weights, or no autoencoder.
    """
    model = layout.from_folder(name) if Path(name).is_dir() else weights.load(name)
    if not isinstance(model, Autoencoder):
        raise ValueError(f"{name} is a {type(model).__name__}, no autoencoder")
    return model.eval().requires_grad_(False)


def save_autoencoder(model: Autoencoder, path: Path) -> None:
    """Write an autoencoder so that `weights.load` reads it."""
    about = {"family": "autoencoder", "model": vars(model.config), "description": "an autoencoder", "metric": {}}
    checkpoint.save(path, model.state_dict(), about)


class Column:
    """A column of a folder of latents, indexed like a tensor; the rows of shards are read when they are used."""

    def __init__(self, shards: list[Tensor], rows: int) -> None:
        self.shards, self.rows = shards, rows
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(B,) → (B, …); what is stored as float16 becomes float32."""
        found = torch.stack([self.shards[row // self.rows][row % self.rows] for row in rows.tolist()])
        return found.float() if found.is_floating_point() else found


def read(folder: str | Path) -> dict[str, Column]:
    """The columns of a folder of latents: `mean`, `std`, `mirrored mean`, `mirrored std`, and `label` if there is one.

    Raises:
        ValueError: no latents, not all of them yet, or a shard that cannot be read.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no latents that are complete; make them with `ditbook encode`") from error
    count = -(-about["rows"] // about["rows of a shard"])
    shards = [_opened(_shard(folder, number)) for number in range(count)]
    columns = {name: Column([shard[name] for shard in shards], about["rows of a shard"]) for name in shards[0]}
    found = {name: len(column) for name, column in columns.items()}
    if set(found.values()) != {about["rows"]}:
        raise ValueError(f"{folder} should have {about['rows']} rows, but has {found}; encode it anew")
    return columns


def _shard(folder: Path, number: int) -> Path:
    return folder / f"latents-{number:06d}.safetensors"


def _opened(path: Path) -> dict[str, Tensor]:
    """The tensors of a shard; the system reads their numbers when they are used."""
    try:
        checkpoint.metadata(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{error}; run `ditbook encode` again, which makes what is missing or damaged") from error
