"""How close a generator comes to real images: FID, KID, Inception Score, precision and recall, over all processes.

The features, and so all of these numbers, are those of the extractor that is named; numbers of two extractors must not
be compared.
"""

from collections.abc import Iterator
from importlib import import_module
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from ditbook import data, pipeline, weights
from ditbook.data import user_images
from ditbook.metrics.fid import Statistics, frechet
from ditbook.metrics.inception_score import inception_score
from ditbook.metrics.kid import kid
from ditbook.metrics.precision_recall import precision_recall
from ditbook.training.distributed import World, joined
from ditbook.training.engine import generator

READER = "scene-reader"


def evaluate(
    name: str,
    real: str,
    *,
    count: int = 1000,
    split: str = "train",
    features: str = READER,
    guidance_scale: float = 1.0,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 50,
    device: str = "cpu",
) -> dict[str, float]:
    """Compare samples with real images. All processes that `torchrun` started call it, and share the work.

    Args:
        name: the weights of a generator, or a weight file. Classes come equally often.
        real: as for `user_images.load`; images are made the size of the samples; at most `count`, evenly spread.
        count: of samples.
        split: of the real images.
        features: see `extractor`.
        guidance_scale: of the samples.
        steps: of the samples.
        seed: of the samples.
        batch_size: images at once.
        device: "cpu" or "cuda".

    Returns:
        The metrics by name; on other processes than the first nothing.

    Raises:
        ValueError: bad arguments, no such extractor, or too few images.
    """
    if min(count, batch_size) < 1:
        raise ValueError(f"count and batch_size must be positive, got {count} and {batch_size}")
    with joined(device) as world:
        network, made = extractor(features, world.device), pipeline.load(name, world.device)
        images = list(originals(real, split, *shape_of(made), count, world, batch_size))
        samples = generated(made, count, world, seed, batch_size, guidance_scale=guidance_scale, steps=steps)
        return compared(network, images, list(samples), world)


@torch.no_grad()
def compared(network: Any, images: list[Tensor], samples: list[Tensor], world: World) -> dict[str, float]:
    """The metrics, on the first process, of this process's batches of real images and of samples. All call it."""
    real, found = (together([network(x.to(world.device)) for x in part], world) for part in (images, samples))
    classes = [network.probabilities(x) for x in samples] if hasattr(network, "probabilities") else None
    probabilities = together(classes, world) if classes is not None else None
    return metrics(real, found, probabilities) if world.first else {}


def shape_of(made: pipeline.Pipeline) -> tuple[int, int]:
    """Side and channels of what a generator makes."""
    if made.autoencoder is None:
        return made.model.config.size, made.model.config.channels
    return made.model.config.size * made.autoencoder.config.factor, made.autoencoder.config.channels


def generated(
    made: pipeline.Pipeline, count: int, world: World, seed: int, batch_size: int, **options: Any
) -> Iterator[Tensor]:
    """This process's batches of the samples, which do not depend on the number of processes."""
    for number, start in enumerate(range(0, count, batch_size)):
        if number % world.size != world.rank:
            continue
        rows = range(start, min(start + batch_size, count))
        asked: dict[str, Any] = {"labels": [row % len(made.labels) for row in rows]}
        asked = asked if made.labels else {"count": len(rows)}
        yield made.sample(**asked, **options, seed=generator(seed, number).initial_seed() % 2**63)


def originals(
    real: str, split: str, size: int, channels: int, count: int, world: World, batch_size: int
) -> Iterator[Tensor]:
    """This process's batches of `count` real images at most, evenly spread: a folder is ordered by class."""
    dataset = user_images.load(real, split)
    chosen = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().split(batch_size)
    mine = torch.cat([torch.empty(0, dtype=torch.int64), *chosen[world.rank :: world.size]])
    prepared = user_images.prepare(dataset.select(mine.tolist()), size, {1: "L", 3: "RGB"}[channels])
    for start in range(0, len(prepared), batch_size):
        yield data.tensors(prepared.select(range(start, min(start + batch_size, len(prepared)))))["image"]


def extractor(name: str, device: torch.device) -> Any:
    """What turns images (B, C, H, W) in [−1, 1] into features (B, F); with `probabilities` it also gives classes.

    Args:
        name: "scene-reader", the judge of the shapes world; or "module:object", anything that can be imported and
            called so.
        device: where the images are; a module is moved there.

    Raises:
        ValueError: it cannot be imported.
    """
    if name == READER:
        return Reader(device)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no features {name!r}: {error}; take {READER} or module:object") from error
    return found.to(device) if isinstance(found, torch.nn.Module) else found


class Reader:
    """The scene reader's features and probabilities, of images of 32×32 pixels."""

    def __init__(self, device: torch.device) -> None:
        self.reader = weights.load(READER).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) → (B, F).

        Raises:
            ValueError: images of another shape.
        """
        if images.shape[1:] != (3, 32, 32):
            raise ValueError(
                f"{READER} reads images of (3, 32, 32), not {tuple(images.shape[1:])}; name other features"
            )
        return self.reader.features(images)

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) → (B, K)."""
        return self.reader.probabilities(images)


def together(parts: list[Tensor], world: World) -> Tensor:
    """The rows of all processes in their order, batch by batch in turn, on the CPU. All of them call it."""
    found = world.gather([part.detach().cpu() for part in parts])
    return torch.cat([part for turn in zip_longest(*found) for part in turn if part is not None])


def metrics(real: Tensor, samples: Tensor, probabilities: Tensor | None) -> dict[str, float]:
    """All metrics from features (N, F) of real images and (M, F) of samples, and from the samples' classes (M, K).

    Raises:
        ValueError: too few images.
    """
    both = Statistics(), Statistics()
    for statistics, features in zip(both, (real, samples), strict=True):
        statistics.add(features)
    size = min(1000, len(real), len(samples))
    kernel, _ = kid(real, samples, torch.Generator().manual_seed(0), size=size)
    precision, recall = precision_recall(real, samples)
    found = {"FID": frechet(*both), "KID": kernel, "precision": precision, "recall": recall}
    if probabilities is not None:
        found["Inception Score"] = inception_score(probabilities, splits=min(10, len(probabilities)))[0]
    return {name: round(value, 5) for name, value in found.items()}
