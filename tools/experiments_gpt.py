"""The experiments of chapter 5, run by experiments.py: loss against size and data, and learning to follow mappings."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from experiments import machine, store, stored
from torch import Tensor

from ditbook import rng
from ditbook.models.gpt import GPT, GPTConfig
from ditbook.training import recipes
from ditbook.training.loop import Stepper, TrainConfig
from ditbook.training.tasks import continuation, mappings

SEEDS = (0, 1, 2)
SIZES = ((16, 1), (24, 1), (32, 2), (48, 3), (64, 4), (96, 4))  # width and depth, from 3 k to 0.45 M
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of the training text, beside the whole
MIDDLE = (48, 3)  # the size that is trained on each fraction
LENGTH, BATCH_SIZE, STEPS, EVERY = 64, 16, 400, 50
DEPTHS, LESSONS = (2, 1), 5000  # layers, and steps, of the models that follow mappings


def scaling() -> None:
    """The least held-out loss of each size on the whole text, and of one size on fractions of it."""
    plans = [(size, 1.0) for size in SIZES] + [(MIDDLE, fraction) for fraction in FRACTIONS]
    for seed in SEEDS:
        for (width, depth), fraction in plans:
            key = {"width": width, "depth": depth, "fraction": fraction, "seed": seed}
            if not stored("gpt-scaling", key):
                store("gpt-scaling", key | scaled(width, depth, fraction, seed) | machine())


def scaled(width: int, depth: int, fraction: float, seed: int) -> dict[str, Any]:
    """Train one model, measure it every 50 steps, and keep its best."""
    start, task = time.perf_counter(), recipes.load("gpt-manual").task
    tokens = task.data()["tokens"]  # pieces of the manual, each a token after the one before
    text = torch.cat([tokens[:, 0], tokens[-1, 1:]])
    pieces = continuation.windows(text[: int(fraction * len(text))], LENGTH + 1)
    torch.manual_seed(seed)
    heads, std = width // 16, width**-0.5
    config = GPTConfig(vocabulary=task.vocabulary, longest=LENGTH, width=width, depth=depth, heads=heads, std=std)
    training = TrainConfig(
        batch_size=BATCH_SIZE, learning_rate=rate(width), weight_decay=0.1, grad_clip=1.0, ema_decay=0.98, seed=seed
    )
    held_out = torch.tensor(continuation.words(task.vocabulary).encode(continuation.text("validation")))
    characters = len(continuation.text("validation")) - 1
    losses = run(
        GPT(config),
        task.loss,
        training,
        lambda stepper: pieces[rng.randint(len(pieces), (BATCH_SIZE,), stepper.generator, stepper.device)],
        lambda model: continuation.surprise(model, held_out, LENGTH).sum().item() / characters,
    )
    best = min(losses)
    row = {"body": config.body, "tokens": int(fraction * len(text)), "loss": best}
    return row | {"step": EVERY * (1 + losses.index(best)), "losses": losses} | seconds_since(start)


def rate(width: int) -> float:
    """The learning rate of a width: the wider, the smaller."""
    return 0.002 * (128 / width) ** 0.5


def learning() -> None:
    """Accuracy of models of two layers and of one, in the course of their training."""
    for seed in SEEDS:
        for depth in DEPTHS:
            key = {"depth": depth, "seed": seed}
            if not stored("gpt-mappings", key):
                store("gpt-mappings", key | followed(depth, seed) | machine())


def followed(depth: int, seed: int) -> dict[str, Any]:
    """Train one model as the recipe says, with another depth, seed and number of steps, measured every 250 steps."""
    start, recipe = time.perf_counter(), recipes.load("gpt-mappings")
    torch.manual_seed(seed)
    training = replace(recipe.training, seed=seed)
    tokens = recipe.task.data()["tokens"]
    found = run(
        GPT(GPTConfig(**{**recipe.table["model"], "depth": depth})),
        recipe.task.loss,
        training,
        lambda stepper: tokens[rng.randint(len(tokens), (training.batch_size,), stepper.generator, stepper.device)],
        lambda model: [mappings.accuracy(model, k, 500) for k in mappings.EXAMPLES],
        steps=LESSONS,
        every=250,
    )
    return {"every": 250, "examples": mappings.EXAMPLES, "accuracy": found} | seconds_since(start)


def run(
    model: GPT,
    loss: Callable[..., Tensor],
    training: TrainConfig,
    batch: Callable[[Stepper], Tensor],
    measure: Callable[[Any], Any],
    *,
    steps: int = STEPS,
    every: int = EVERY,
) -> list[Any]:
    """Train, and measure the averaged model every so many steps."""
    stepper, found = Stepper(model, loss, training), []
    for step in range(1, steps + 1):
        stepper.step({"tokens": batch(stepper)})
        if step % every == 0:
            stepper.check()
            found.append(measure(stepper.ema.model))
    return found


def seconds_since(start: float) -> dict[str, float]:
    return {"seconds": round(time.perf_counter() - start, 1)}
