"""Trained weights that ship with the package, loaded by name.

`names()` lists them; `ditbook train NAME` makes one again from its recipe (`NAME.toml`) beside it. In place of a name
every function takes the path of a file that ends in `.safetensors`, such as that command writes.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from torch import nn

from ditbook.weights import checkpoint

# family: module and class of the model; the class of its config is named after it
FAMILIES = {
    "actor-critic": ("ditbook.models.gpt", "ActorCritic"),
    "autoencoder": ("ditbook.models.autoencoder", "Autoencoder"),
    "autoregressive-prior": ("ditbook.models.prior", "AutoregressivePrior"),
    "bert": ("ditbook.models.bert", "BERT"),
    "clip": ("ditbook.models.clip", "CLIP"),
    "dalle": ("ditbook.models.dalle", "DALLE"),
    "diffusion-prior": ("ditbook.models.prior", "DiffusionPrior"),
    "dit": ("ditbook.models.dit", "DiT"),
    "dvae": ("ditbook.models.dvae", "DVAE"),
    "gpt": ("ditbook.models.gpt", "GPT"),
    "gpt-scorer": ("ditbook.models.gpt", "GPTScorer"),
    "scene-reader": ("ditbook.judges.scene_reader", "SceneReader"),
    "seq2seq": ("ditbook.models.seq2seq", "Seq2Seq"),
    "text-dit": ("ditbook.models.text_dit", "TextDiT"),
    "transformer": ("ditbook.models.transformer", "Transformer"),
    "unclip-decoder": ("ditbook.models.unclip", "UnCLIPDecoder"),
    "unet": ("ditbook.models.unet", "UNet"),
    "upsampler": ("ditbook.models.unet", "Upsampler"),
}
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a weight file holds."""

    name: str
    bytes: int
    parameters: int
    metric: dict[str, float]
    description: str


def names() -> list[str]:
    """The names that `load` knows."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def configured(family: str, config: Mapping[str, Any]) -> Any:
    """The config of a model. Arguments and errors as for `build`."""
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"no family of models {family!r}; there are {', '.join(FAMILIES)}")
    module, name = FAMILIES[family]
    try:
        return getattr(import_module(module), f"{name}Config")(**config)
    except TypeError as error:
        raise ValueError(f"{name} cannot be built from {config}: {error}") from error


def build(family: str, config: Mapping[str, Any]) -> nn.Module:
    """A model with fresh parameters.

    Args:
        family: one of `FAMILIES`.
        config: fields of the model's config, by name.

    Raises:
        ValueError: no such family, or the config has other fields or values that do not fit.
    """
    settings = configured(family, config)
    module, name = FAMILIES[family]
    return getattr(import_module(module), name)(settings)


def metadata(name: str) -> dict[str, Any]:
    """Recipe, steps, seed, data, metric and package version of the weights `name`; the tensors are not read.

    Raises:
        ValueError: no such weights, or the file is broken.
    """
    with _file(name) as path:
        return checkpoint.metadata(path)


def summary(name: str) -> Summary:
    """Size, metric and purpose of the weights `name`; the tensors are not read.

    Raises:
        ValueError: as for `metadata`, or it lacks the metric or the description.
    """
    with _file(name) as path:
        about = checkpoint.metadata(path)
        metric, description = about.get("metric"), about.get("description")
        if not isinstance(metric, dict) or not all(type(number) in (int, float) for number in metric.values()):
            raise ValueError(f"{path} has the metric {metric!r} in its metadata; it must be a table of numbers")
        if not isinstance(description, str):
            raise ValueError(f"{path} has the description {description!r} in its metadata; it must be a text")
        return Summary(
            name=name,
            bytes=path.stat().st_size,
            parameters=checkpoint.count(path),
            metric=metric,
            description=description,
        )


def load(name: str) -> Any:
    """The trained model `name`, on the CPU and in evaluation mode.

    >>> model = load("dit-digits")

    Raises:
        ValueError: no such weights, or the file is broken; the message names the file and the fault.
        FileNotFoundError: no file at the given path.
    """
    with _file(name) as path:
        tensors, about = checkpoint.load(path)
    try:
        model = build(about["family"], about["model"])
        model.load_state_dict(tensors)
    except KeyError as error:
        raise ValueError(f"{path} holds no model: its metadata lacks {error}") from error
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the model that its metadata names: {error}") from error
    return model.eval().requires_grad_(False)


def _file(name: str) -> AbstractContextManager[Path]:
    """The file while it is in use: from a zipped package it is a temporary copy."""
    if name.endswith(SUFFIX):
        return nullcontext(Path(name))
    if name not in names():
        raise ValueError(f"no weights named {name!r}; there are {', '.join(names())}")
    return resources.as_file(resources.files(__name__) / f"{name}{SUFFIX}")
