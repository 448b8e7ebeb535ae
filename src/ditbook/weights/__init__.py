"""Trained weights that ship with the package, loaded by name.

`names()` lists them; `python tools/train_weights.py` makes them from the recipes (`*.toml`) beside them.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from ditbook.judges.scene_reader import SceneReader, SceneReaderConfig
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.models.dit import DiT, DiTConfig
from ditbook.models.seq2seq import Seq2Seq, Seq2SeqConfig
from ditbook.models.transformer import Transformer, TransformerConfig
from ditbook.models.unet import UNet, UNetConfig
from ditbook.weights import checkpoint

FAMILIES: dict[str, tuple[type, type]] = {
    "autoencoder": (Autoencoder, AutoencoderConfig),
    "clip": (CLIP, CLIPConfig),
    "dit": (DiT, DiTConfig),
    "scene-reader": (SceneReader, SceneReaderConfig),
    "seq2seq": (Seq2Seq, Seq2SeqConfig),
    "transformer": (Transformer, TransformerConfig),
    "unet": (UNet, UNetConfig),
}


def names() -> list[str]:
    """The names that `load` knows."""
    files = resources.files(__name__).iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".safetensors"))


def build(family: str, config: dict[str, Any]) -> nn.Module:
    """A model with fresh weights.

    Raises:
        ValueError: no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family of models {family!r}; there are {', '.join(FAMILIES)}")
    make, configure = FAMILIES[family]
    return make(configure(**config))


def metadata(name: str) -> dict[str, Any]:
    """Recipe, steps, seed, data, metric and package version of the weights `name`."""
    return checkpoint.load(_path(name))[1]


def load(name: str) -> Any:
    """The trained model `name`, on the CPU and in evaluation mode.

    >>> model = load("dit-digits")

    Raises:
        ValueError: no such weights, or the file is broken.
    """
    tensors, meta = checkpoint.load(_path(name))
    model = build(meta["family"], meta["model"])
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def _path(name: str) -> Path:
    if name not in names():
        raise ValueError(f"no weights named {name!r}; there are {', '.join(names())}")
    with resources.as_file(resources.files(__name__) / f"{name}.safetensors") as path:
        return path
