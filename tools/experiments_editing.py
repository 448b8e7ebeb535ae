"""The experiments of chapter 13, run by experiments.py: inpainting, outpainting, editing by noise, denoising."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from experiments import DEVICE, machine, store, stored
from torch import Tensor

from ditbook import data, pipeline, rng, weights
from ditbook.data import photographs, shapes
from ditbook.diffusion import editing, guidance, linear, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.judges.scene_reader import SceneReader
from ditbook.training.tasks import faces
from ditbook.training.tasks.digits import Digits
from ditbook.training.tasks.photographs import crops

SEEDS = (0, 1, 2)
# of a sequence of which the first half is known: steps, jump and repetitions
GAUSSIAN = ((50, 1, 1), (250, 1, 1), (1000, 1, 1), (50, 1, 2), (50, 1, 10), (50, 5, 2), (50, 5, 5), (50, 5, 10),
            (50, 10, 10), (50, 10, 20), (250, 10, 10))  # fmt: skip
WIDTH, CORRELATION, SEQUENCES = 16, 0.9, 1000
# of images: name, steps, jump and repetitions; "pasted" is a sample into which the known part is put at the end
PLANS = (("pasted", 25, 5, 1), ("replaced", 25, 5, 1), ("replaced", 65, 5, 1), ("resampled", 25, 5, 3),
         ("resampled", 25, 1, 3), ("resampled", 25, 5, 5))  # fmt: skip
FEWER = PLANS[:4]  # for faces
BOUNDS = ("black", "truth")  # lower halves of digits that no model drew: none at all, and the true ones
DIGITS = 100
SIGMAS = (0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
STEPS = 25
NEW = 3  # windows of a wide scene after the first
OVERLAP = 8  # pixels
SCENES = 32
WINDOWS = ((25, 1), (65, 1), (25, 3))  # steps and repetitions of a window: the last two call the model as often
NOISES = (0.1, 0.2, 0.4, 0.8)


def sequence() -> tuple[GaussianDiffusion, linear.WienerFilter, Tensor]:
    """A process, the exact model of an autoregressive sequence, and its covariance."""
    place = torch.arange(WIDTH, dtype=torch.float64)
    covariance = CORRELATION ** (place[:, None] - place).abs()
    process = GaussianDiffusion(schedules.cosine(1000), predicts="x_start")
    return process, linear.WienerFilter(torch.zeros(WIDTH, dtype=torch.float64), covariance, process), covariance


def gaussian() -> None:
    """Completions of sequences with known first halves, each another one, beside the exact conditional."""
    process, model, covariance = sequence()
    mask, zero = torch.arange(WIDTH) < WIDTH // 2, torch.zeros(WIDTH, dtype=torch.float64)
    for steps, jump, repetitions in GAUSSIAN:
        for seed in SEEDS:
            key = {"steps": steps, "jump": jump, "repetitions": repetitions, "seed": seed}
            if stored("inpainting-gaussian", key):
                continue
            generator = torch.Generator().manual_seed(seed)
            known = rng.randn((SEQUENCES, WIDTH), generator, zero) @ torch.linalg.cholesky(covariance).T
            fill = partial(editing.inpaint, known=known, mask=mask, jump=jump, repetitions=repetitions)
            noise = rng.randn(known.shape, generator, zero)
            x = samplers.sample(model, noise, process.respace(steps), step=fill, generator=generator)
            mean, wanted = linear.conditional(zero, covariance, mask, known[0, mask])
            weights_of = torch.stack(
                [linear.conditional(zero, covariance, mask, row)[0] for row in torch.eye(8).double()]
            )
            off = x[:, ~mask] - known[:, mask] @ weights_of  # from the right mean
            found = off.T @ off / len(off)
            divergence = (
                torch.linalg.solve(wanted, found).trace() - len(mean) - torch.logdet(found) + torch.logdet(wanted)
            )
            across = (x[:, 8] - x[:, 7]).square().mean() / (2 - 2 * CORRELATION)
            row = {"calls": editing.calls(steps, jump, repetitions), "border": across.item()}
            store("inpainting-gaussian", key | row | {"divergence": divergence.item() / 2} | machine())


def inpainting() -> None:
    """Lower halves of held-out digits and faces, filled in three ways."""
    for world, model, process, images, labels in worlds():
        mask = (torch.arange(images.shape[2]) < images.shape[2] // 2).view(-1, 1)  # the upper half is known
        for name, steps, jump, repetitions in PLANS if world == "digits" else FEWER:
            for seed in SEEDS:
                key = {"world": world, "method": name, "steps": steps, "jump": jump, "repetitions": repetitions}
                if stored("inpainting", key | {"seed": seed}):
                    continue
                generator = torch.Generator().manual_seed(seed)
                step = partial(samplers.ddpm, variance="posterior")
                if name != "pasted":
                    step = partial(
                        editing.inpaint, known=images, mask=mask, step=step, jump=jump, repetitions=repetitions
                    )
                noise = rng.randn(images.shape, generator, images)
                x = samplers.sample(model, noise, process.respace(steps), step=step, clip=1.0, generator=generator)
                x = torch.where(mask, images, x).clamp(-1, 1)
                row = key | {"seed": seed, "n": len(x), "calls": editing.calls(steps, jump, repetitions)}
                store("inpainting", row | seam(x, images) | reading(x, labels) | machine())
        if world == "digits":
            bounds(images, mask, labels)


def bounds(images: Tensor, mask: Tensor, labels: Tensor | None) -> None:
    """What the reader of digits says of upper halves alone, and of the true digits."""
    for name, x in zip(BOUNDS, (torch.where(mask, images, -1.0), images), strict=True):
        key = {"world": "digits", "method": name, "steps": 0, "jump": 1, "repetitions": 1, "seed": 0}
        if not stored("inpainting", key):
            row = key | {"n": len(x), "calls": 0}
            store("inpainting", row | seam(x, images) | reading(x, labels) | machine())


def worlds() -> Iterator[tuple[str, Any, GaussianDiffusion, Tensor, Tensor | None]]:
    """Name, model without a condition, process, held-out images and their labels, if they have any."""
    maker = pipeline.load("dit-digits-28", DEVICE)
    held_out = Digits(dataset="mnist").split("validation")
    images, labels = held_out["image"][:DIGITS], held_out["label"][:DIGITS]

    def without(x: Tensor, t: Tensor) -> Tensor:
        return maker.model(x, t, **maker.model.null_condition(y=torch.zeros(len(x), dtype=torch.long)))

    yield "digits", without, maker.diffusion, images, labels
    maker_of_faces = pipeline.load("unet-faces", DEVICE)
    yield "faces", maker_of_faces.model, maker_of_faces.diffusion, faces.load("held out"), None


def seam(x: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean squared step from the last known row to the first new one, over that of the true images; and the error.

    The standard error of the first is over images.
    """
    row = x.shape[2] // 2
    steps, usual = ((image[:, :, row] - image[:, :, row - 1]).square().mean((1, 2)) for image in (x, truth))
    ratio = steps.mean() / usual.mean()
    spread = (steps - ratio * usual).std() / usual.mean() / len(x) ** 0.5
    return {"seam": ratio.item(), "standard error": spread.item(), "error": (x - truth).square().mean().item()}


def reading(x: Tensor, labels: Tensor | None) -> dict[str, float]:
    """The fraction of digits that are read as what they were."""
    return {} if labels is None else {"read": Digits(dataset="mnist").read(x, labels.tolist())}


def dial() -> None:
    """Held-out digits, edited into the next digit from several noise levels."""
    for sigma in SIGMAS:
        for seed in SEEDS:
            if not stored("edits", key := {"sigma": sigma, "seed": seed}):
                store("edits", key | {"n": DIGITS} | edited(sigma, seed) | machine())


def edited(sigma: float, seed: int) -> dict[str, float]:
    """How far they moved, and the fraction read as the next digit."""
    maker, task = pipeline.load("dit-digits-28", DEVICE), Digits(dataset="mnist")
    held_out = task.split("validation")
    images, labels = held_out["image"][:DIGITS], (held_out["label"][:DIGITS] + 1) % 10
    process, model = maker.diffusion.respace(2 * STEPS), guidance.ClassifierFreeGuidance(maker.model, 2.0)
    generator = torch.Generator().manual_seed(seed)
    x = editing.edit(model, images, process, sigma=sigma, clip=1.0, generator=generator, y=labels).clamp(-1, 1)
    return {"moved": (x - images).square().mean().item(), "read": task.read(x, labels.tolist())}


def outpainting() -> None:
    """Wide scenes, window after window in latents, each with a thing of its own."""
    maker, reader = pipeline.load("dit-shapes-latent", DEVICE), weights.load("scene-reader")
    for seed in SEEDS:
        for steps, repetitions in WINDOWS:
            key = {"seed": seed, "repetitions": repetitions, "jump": 5, "steps": steps, "overlap": OVERLAP}
            if not stored("outpainting", key):
                x, labels = wide(maker, SCENES, seed, steps, repetitions)
                store("outpainting", key | {"n": SCENES} | windows_read(reader, x, labels) | machine())


@torch.no_grad()
def wide(maker: pipeline.Pipeline, count: int, seed: int, steps: int, repetitions: int) -> tuple[Tensor, Tensor]:
    """Scenes of 32×104 pixels, and the labels of their windows, (NEW + 1, count)."""
    assert maker.autoencoder is not None
    model, process = guidance.ClassifierFreeGuidance(maker.model, 2.0), maker.diffusion.respace(steps)
    generator = torch.Generator().manual_seed(seed)
    labels = rng.randint(len(shapes.PAIRS), (NEW + 1, count), generator, torch.device("cpu"))
    noise = rng.randn((count, 4, 8, 8), generator, torch.empty(0))
    first = samplers.sample(model, noise, process, y=labels[0])
    conditions = [{"y": row} for row in labels[1:]]
    options = {"window": 8, "overlap": OVERLAP // 4, "jump": 5, "repetitions": repetitions}
    z = editing.outpaint(model, first, process, conditions, generator=generator, **options)
    return maker.autoencoder.from_latents(z).clamp(-1, 1), labels


def windows_read(reader: SceneReader, x: Tensor, labels: Tensor) -> dict[str, float]:
    """Of the first windows and of all others, the fraction in which the reader finds the thing of the label."""
    right = []
    for k, row in enumerate(labels):
        start = k * (32 - OVERLAP)
        found = [[(it.colour, it.shape) for it, _ in things] for things in reader.read(x[..., start : start + 32])]
        wanted = [shapes.PAIRS[label] for label in row.tolist()]
        right.append(sum(pair in things for things, pair in zip(found, wanted, strict=True)) / len(wanted))
    return {"shown in the first": right[0], "shown in the others": sum(right[1:]) / NEW}


def denoising() -> None:
    """Squares of the right parts of two photographs: a network and Wiener filters of several sizes."""
    maker, train = pipeline.load("unet-photographs", DEVICE), data.to_float(crops("train", 8000, 32, seed=0))
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"network": partial(predicted, maker)}
    for side in (1, 4, 8, 16):
        methods[f"Wiener, {side}×{side}"] = partial(blockwise, side, linear.fit(blocks(train, side)), maker.diffusion)
    for name, sigma in product(photographs.NAMES, NOISES):
        noisy, t, x = noisy_squares(maker, name, sigma)
        errors = {kind: (method(noisy, t) - x).square().mean((1, 2, 3)) for kind, method in methods.items()}
        for kind, error in errors.items():
            if not stored("denoising", key := {"photograph": name, "sigma": sigma, "method": kind}):
                ahead = error - errors["network"]  # of the same squares
                row = {"n": len(x), "error": error.mean().item(), "network ahead by": ahead.mean().item()}
                store("denoising", key | row | {"standard error": ahead.std().item() / len(x) ** 0.5} | machine())


def noisy_squares(maker: pipeline.Pipeline, name: str, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Squares of a photograph that do not overlap, with noise; their timesteps; and the squares without."""
    (image,) = [x for x, n in zip(photographs.load("validation")["image"], photographs.NAMES, strict=True) if n == name]
    whole = data.to_float(torch.from_numpy(np.array(image))[None])  # (1, 3, 427, 160)
    x, process = blocks(whole, 32).view(-1, 3, 32, 32), maker.diffusion
    assert isinstance(process, GaussianDiffusion)
    t = torch.full((len(x),), int(process.timesteps_of(torch.tensor(sigma)).round()))
    return process.add_noise(x, t, rng.randn(x.shape, torch.Generator().manual_seed(4), x)), t, x


@torch.no_grad()
def predicted(maker: pipeline.Pipeline, noisy: Tensor, t: Tensor) -> Tensor:
    """The network's prediction of the clean image."""
    return maker.diffusion.predict(maker.model(noisy, t), noisy, t).x_start


def blocks(x: Tensor, side: int) -> Tensor:
    """Squares of images (B, 3, H, W), a row each, (B·N, 3·side·side)."""
    return torch.nn.functional.unfold(x, side, stride=side).transpose(1, 2).flatten(0, 1)


def blockwise(side: int, fitted: tuple[Tensor, Tensor], process: GaussianDiffusion, noisy: Tensor, t: Tensor) -> Tensor:
    """The Wiener filter of squares, applied to each of them."""
    rows = blocks(noisy, side)
    found = linear.WienerFilter(*fitted, process)(rows, t[:1].expand(len(rows)))
    found = found.view(len(noisy), -1, rows.shape[1]).transpose(1, 2)
    return torch.nn.functional.fold(found, noisy.shape[2:], side, stride=side)


EXPERIMENTS = {
    "inpainting-gaussian": gaussian,
    "inpainting": inpainting,
    "edits": dial,
    "outpainting": outpainting,
    "denoising": denoising,
}
