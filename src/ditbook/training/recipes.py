"""Recipes: the files from which the shipped weights are trained, `weights/NAME.toml`.

A recipe holds what is listed in `KEYS`, the keys of its task, and the tables `model` and `training`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ditbook import __version__, weights
from ditbook.models.dit import MODELS
from ditbook.training.loop import TrainConfig
from ditbook.training.loop import train as train_model
from ditbook.training.tasks import Task, latents
from ditbook.training.tasks.autoencoder import Reconstruct
from ditbook.training.tasks.captions import Captions
from ditbook.training.tasks.clip import MatchCaptions
from ditbook.training.tasks.continuation import ContinueManual
from ditbook.training.tasks.dalle import WriteImages
from ditbook.training.tasks.digits import Digits
from ditbook.training.tasks.dvae import Tokenize
from ditbook.training.tasks.emoji import DecodeEmoji, MatchNames, ReconstructEmoji
from ditbook.training.tasks.faces import Faces, UpsampleFaces
from ditbook.training.tasks.mappings import FollowMappings
from ditbook.training.tasks.masked_words import MaskedWords
from ditbook.training.tasks.photographs import Photographs
from ditbook.training.tasks.scene_reader import ReadScenes
from ditbook.training.tasks.scenes import Scenes
from ditbook.training.tasks.summaries import Imitate, Prefer, PreferDirectly, Reinforce
from ditbook.training.tasks.text_dit import DrawEmoji, DrawScenes
from ditbook.training.tasks.unclip import DecodeVectors, GuessVectors, WriteVectors
from ditbook.training.tasks.upsampling import UpsampleScenes
from ditbook.weights import checkpoint

TASKS: dict[str, type[Task]] = {
    "autoencoder": Reconstruct,
    "captions": Captions,
    "clip": MatchCaptions,
    "dalle": WriteImages,
    "digits": Digits,
    "emoji-autoencoder": ReconstructEmoji,
    "emoji-clip": MatchNames,
    "emoji-decoder": DecodeEmoji,
    "emoji-from-text": DrawEmoji,
    "faces": Faces,
    "faces-upsampling": UpsampleFaces,
    "latents": latents.Latents,
    "masked-words": MaskedWords,
    "continuation": ContinueManual,
    "mappings": FollowMappings,
    "photographs": Photographs,
    "scene-reader": ReadScenes,
    "scenes": Scenes,
    "scenes-from-text": DrawScenes,
    "scenes-upsampling": UpsampleScenes,
    "summaries": Imitate,
    "summaries-dpo": PreferDirectly,
    "summaries-ppo": Reinforce,
    "summaries-reward": Prefer,
    "tokens": Tokenize,
    "unclip-autoregressive-prior": WriteVectors,
    "unclip-decoder": DecodeVectors,
    "unclip-diffusion-prior": GuessVectors,
}
KEYS = ("description", "family", "task", "data", "dtype", "model", "training")
DTYPES = {"float16": torch.float16, "float32": torch.float32}
SUFFIX = ".toml"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a weight file is made."""

    name: str
    table: Mapping[str, Any]  # the whole file; it becomes the metadata of the weights
    task: Task
    training: TrainConfig
    dtype: torch.dtype  # of the stored tensors


def names() -> list[str]:
    """The names that `load` knows."""
    files = resources.files(weights).iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def load(name: str) -> Recipe:
    """The recipe of the shipped weights `name`, of a model of the paper, or in the file of a path that ends in `.toml`.

    Raises:
        ValueError: no such recipe.
        FileNotFoundError: no such file.
    """
    if name.endswith(SUFFIX):
        return parse(Path(name).stem, _read(Path(name)))
    if name in MODELS:
        return parse(name.replace("/", "-"), latents.paper(name))
    if name not in names():
        raise ValueError(f"no recipe named {name!r}; there are {', '.join(names())}")
    return parse(name, tomllib.loads((resources.files(weights) / f"{name}{SUFFIX}").read_text(encoding="utf-8")))


def parse(name: str, table: Mapping[str, Any]) -> Recipe:
    """Check a recipe's table.

    Raises:
        ValueError: a key is missing or unknown, or a value of another type or out of range, in the config of the model
            too; the message names the recipe and the key.
    """
    missing = [key for key in KEYS if key not in table]
    if missing:
        raise ValueError(f"recipe {name} lacks {', '.join(missing)}")
    for key in KEYS:
        kind, words = (Mapping, "a table") if key in ("model", "training") else (str, "a text")
        if not isinstance(table[key], kind):
            raise ValueError(f"recipe {name}: {key} {table[key]!r} must be {words}")
    if table["task"] not in TASKS:
        raise ValueError(f"recipe {name} has the unknown task {table['task']!r}; there are {', '.join(TASKS)}")
    if table["dtype"] not in DTYPES:
        raise ValueError(f"recipe {name} has the unknown dtype {table['dtype']!r}; there are {', '.join(DTYPES)}")
    try:
        weights.configured(table["family"], table["model"])
    except ValueError as error:
        raise ValueError(f"recipe {name}, model: {error}") from error
    own = {key: value for key, value in table.items() if key not in KEYS}
    return Recipe(
        name=name,
        table=table,
        task=_filled(TASKS[table["task"]], own, f"recipe {name}"),
        training=_filled(TrainConfig, table["training"], f"recipe {name}, training"),
        dtype=DTYPES[table["dtype"]],
    )


def train(
    name: str,
    *,
    device: str | torch.device = "cpu",
    steps: int | None = None,
    out: str | Path | None = None,
    runs: str | Path = "runs",
) -> dict[str, float]:
    """Train the weights `name` and write them to a file, as a whole or not at all.

    Args:
        device: where the model is trained; see `export` for where it is measured.
        steps: in place of the recipe's; then the metadata of the file have a `note`.
        out: the file, by default NAME.safetensors in the working directory.
        runs: folder of the checkpoint NAME.safetensors, from which a run that was stopped goes on.

    Returns:
        The metric.

    Raises:
        ValueError: no such recipe or device, or a checkpoint that does not fit.
        DivergedError: the training diverged.
    """
    recipe = load(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here: {error}") from error
    config = recipe.training if steps is None else replace(recipe.training, steps=steps)
    model = started(recipe).to(device)
    path = Path(runs) / f"{recipe.name}.safetensors"
    trained = train_model(
        model, recipe.task.loss, recipe.task.batches(model), config, path=path, after_step=recipe.task.after_step
    )
    return export(recipe, trained.ema, config.steps, out, device)


def started(recipe: Recipe) -> nn.Module:
    """The model of a recipe with the parameters that its training begins with, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = weights.build(recipe.table["family"], recipe.table["model"])
        recipe.task.start(model)
    return model


def export(
    recipe: Recipe, model: nn.Module, steps: int, out: str | Path | None, device: str | torch.device = "cpu"
) -> dict[str, float]:
    """Measure a trained model and write it to a file, as a whole or not at all.

    Args:
        model: changed in place to what will be read back.
        steps: of its training.
        out: the file, by default NAME.safetensors in the working directory.
        device: where it is measured if the task can be measured `anywhere` and there is room; else it is the CPU.

    Returns:
        The metric.
    """
    stored = model.cpu().to(recipe.dtype).float().eval()
    table = {**recipe.table, "training": {**recipe.table["training"], "steps": steps}}
    for name in ("predicts", "schedule"):  # which the recipe may leave to the task, but `pipeline.load` must know
        if (value := getattr(recipe.task, name, None)) is not None:
            table[name] = value
    if steps != recipe.training.steps:
        table["note"] = f"{steps:,} of the recipe's {recipe.training.steps:,} steps"
    try:
        metric = recipe.task.evaluate(stored.to(device if recipe.task.anywhere else "cpu"))
    except torch.OutOfMemoryError:  # what was trained may lie there yet
        metric = recipe.task.evaluate(stored.cpu())
    tensors = {key: value.to("cpu", recipe.dtype) for key, value in stored.state_dict().items()}
    metadata = table | {"metric": metric, "version": __version__}
    checkpoint.save(f"{recipe.name}.safetensors" if out is None else out, tensors, metadata)
    return metric


def _read(path: Path) -> dict[str, Any]:
    """The table of a file."""
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error


def _filled(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of a dataclass with the given fields."""
    known = {field.name: field.default is MISSING for field in fields(cls)}  # type: ignore[arg-type]
    missing = [key for key, needed in known.items() if needed and key not in values]
    unknown = [key for key in values if key not in known]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if unknown:
        raise ValueError(f"{where} has the unknown keys {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
