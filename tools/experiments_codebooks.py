"""The experiment of chapter 9 on codebooks, run by experiments.py: how many codes are used, by seed and kind."""

import time
from functools import cache
from typing import Any

import torch
from experiments import machine, store, stored
from torch import Tensor

from ditbook import data
from ditbook.data import emoji, shapes
from ditbook.layers import quantize
from ditbook.layers.logit_laplace import from_unit
from ditbook.models.dvae import DVAE, DVAEConfig
from ditbook.objectives.discrete import cosine_anneal, quantized_loss, relaxed_loss
from ditbook.training import recipes
from ditbook.training.tasks.dvae import Tokenize, sample_layouts

SEEDS = (0, 1, 2)
SMALL: dict[str, Any] = {"vocabulary": 256, "width": 16, "start": 32, "groups": 3, "blocks": 1, "gain": 1.0}
STEPS, BATCH, EVERY = 160, 24, 20  # of training; after so many steps unused codes start again
COLDEST = 1 / 16
CODEBOOKS: dict[str, dict[str, Any]] = {
    "vectors, random start": {"code_width": 16},
    "vectors, start from data": {"code_width": 16, "from_data": True},
    "vectors, start from data, restarts": {"code_width": 16, "from_data": True, "restarts": True},
    "vectors, continuous first, restarts": {"code_width": 16, "from_data": True, "restarts": True, "continuous": 40},
    "Gumbel, annealed": {"warmest": 1.0},
    "Gumbel, cold from the start": {"warmest": COLDEST},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def collapse_images() -> tuple[Tensor, Tensor]:
    """Images to learn from, bytes, and 1,000 scenes and emoji held out."""
    task = recipes.load("dvae").task
    assert isinstance(task, Tokenize)
    held = [layout for layout in sample_layouts(20_000, seed=1) if shapes.held_out(layout)][:500]
    drawings = torch.cat([data.tensors(emoji.load(split))["image"] for split in ("things", "pairs")])[:500]
    return task.data()["image"], torch.cat([shapes.tensors(held), drawings])


def collapse() -> None:
    """How many codes of 256 are used by small autoencoders that differ in the codebook alone."""
    for seed in SEEDS:
        for name, how in CODEBOOKS.items():
            if not stored("codebooks", {"codebook": name, "seed": seed}):
                start = time.process_time()
                for row in train_small(seed, **how):
                    seconds = round(time.process_time() - start, 1)
                    store("codebooks", {"codebook": name, "seed": seed} | row | {"seconds": seconds} | machine())


def train_small(
    seed: int,
    code_width: int | None = None,
    from_data: bool = False,
    restarts: bool = False,
    continuous: int = 0,
    warmest: float = 1.0,
) -> list[dict[str, Any]]:
    """Train; rows after each quarter of the steps."""
    torch.manual_seed(seed)
    model, generator = DVAE(DVAEConfig(**SMALL, code_width=code_width)), seeded(seed)
    images, held = collapse_images()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    used, measured = torch.zeros(256, dtype=torch.int64), []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50)
        x = data.to_float(images[torch.randint(len(images), (BATCH,), generator=generator)])
        x = x + 0.3 * (torch.rand(x.shape, generator=generator) - 0.5)
        if step < continuous:
            loss = model.nats(x, model.vectors(x)).mean()
        elif model.quantizer is not None:
            z = model.vectors(x).detach()
            if from_data and step == continuous:
                model.quantizer.replace(torch.ones(256, dtype=torch.bool), z, generator)
            used += quantize.counts(model.quantizer.similarities(z).argmax(dim=1), 256)
            if restarts and step > continuous and step % EVERY == 0:
                model.quantizer.replace(used == 0, z, generator)
                used.zero_()
            loss = quantized_loss(model, x, 0.25)
        else:
            temperature = cosine_anneal(step, 2 * STEPS // 3, warmest, COLDEST)
            weight = cosine_anneal(step, 2 * STEPS // 3, 0.0, 1.0)
            loss = relaxed_loss(model, x, temperature, weight, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % (STEPS // 4) == 0:
            row = {"step": step + 1} | codebook_of(model, held)
            if model.quantizer is None:
                row |= {"temperature": round(temperature, 4), "relaxed_error": relaxed_error(model, held, temperature)}
            measured.append(row)
    return measured


def codebook_of(model: DVAE, held: Tensor) -> dict[str, Any]:
    """Codes in use, their perplexity, and the error of images decoded from tokens."""
    tokens = model.tokens(held)
    counts = quantize.counts(tokens, model.config.vocabulary)
    error = (model.images(tokens) - held).abs().mean().item()
    return {
        "codes": int((counts > 0).sum()),
        "perplexity": round(quantize.perplexity(counts).item(), 2),
        "error": round(error, 4),
    }


@torch.no_grad()
def relaxed_error(model: DVAE, held: Tensor, temperature: float) -> float:
    """The error of images decoded from relaxed samples, which training sees."""
    weights = model.relax(model.encode(held), temperature, seeded(0))
    decoded = from_unit(model.decode(weights)[0].sigmoid())
    return round((decoded - held).abs().mean().item(), 4)
