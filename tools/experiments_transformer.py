"""Two experiments of chapter 3: where the norm stands, with and without a warm-up; two translators in equal steps."""

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ditbook import generation
from ditbook.data import captions
from ditbook.data.tokenizer import BOS, EOS, PAD, batch
from ditbook.metrics.text import exact_match
from ditbook.models.seq2seq import Seq2Seq, Seq2SeqConfig
from ditbook.models.transformer import Transformer, TransformerConfig
from ditbook.objectives.tokens import next_token_loss

SEEDS, TRANSLATOR_SEEDS = 3, 2
NORM_STEPS, NORM_BATCH, NORM_RATE = 120, 32, 2e-3
TRANSFORMER, GRU = "Transformer", "GRU with attention"
RATES = {TRANSFORMER: 2e-3, GRU: 4e-3}  # of the chapter
TRANSLATOR_STEPS, TRANSLATOR_BATCH = 130, 48
TRANSLATORS = ((TRANSFORMER, 0.0), (TRANSFORMER, 0.1), (GRU, 0.0))  # with label smoothing


@cache
def translations(split: str, size: int) -> tuple[Tensor, Tensor]:
    """English captions and their French, as the chapter reads them: (N, S), (N, T)."""
    english, french = captions.tokenizer("english"), captions.tokenizer("french")
    rows = captions.load(split, size)
    source = batch([english.encode(text) for text in rows["caption"]])
    return source, batch([french.encode(text) for text in rows["french"]], bos=True, eos=True)


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    steps: int,
    size: int,
    seed: int,
    clip: float = math.inf,
    smoothing: float = 0.0,
) -> list[float]:
    """The loop of the chapter; `rate` multiplies the learning rate of a step. Returns the losses."""
    source, target = translations("train", 8_000)
    generator = torch.Generator().manual_seed(seed)
    schedule, losses = torch.optim.lr_scheduler.LambdaLR(optimizer, rate), []
    for _ in range(steps):
        rows = torch.randint(len(source), (size,), generator=generator)
        logits = model(source[rows], target[rows, :-1])
        loss = next_token_loss(logits, target[rows, 1:], smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def norms() -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Six encoder and six decoder layers of width 64, with the norm before or after each sublayer."""
    for seed in range(SEEDS):
        for warmup in (0, 100):
            for norm in ("pre-norm", "post-norm"):
                key = {"norm": norm, "warmup_steps": warmup, "seed": seed}
                yield key, partial(trained_deep, **key)


def trained_deep(norm: str, warmup_steps: int, seed: int) -> dict[str, Any]:
    """The losses of 120 steps of Adam, in nats per word."""
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(source=29, target=39, width=64, depth=6, pre_norm=norm == "pre-norm"))
    optimizer = torch.optim.Adam(model.parameters(), lr=NORM_RATE)
    start = time.perf_counter()
    losses = fit(model, optimizer, lambda s: min(1, (s + 1) / (warmup_steps + 1)), NORM_STEPS, NORM_BATCH, seed)
    return {"losses": [round(loss, 3) for loss in losses], "seconds": round(time.perf_counter() - start, 1)}


def translators() -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """The GRU and the Transformer of the chapter after equal steps, and the Transformer with label smoothing."""
    for seed in range(TRANSLATOR_SEEDS):
        for name, smoothing in TRANSLATORS:
            key = {"model": name, "smoothing": smoothing, "seed": seed}
            yield key, partial(trained_translator, **key)


def trained_translator(model: str, smoothing: float, seed: int) -> dict[str, Any]:
    """What a translator makes of 1,000 held-out sentences: exact matches, loss, and how sure it is of its words."""
    torch.manual_seed(seed)
    gru = Seq2SeqConfig(source=29, target=39, attention="additive")
    network = Transformer(TransformerConfig(source=29, target=39)) if model == TRANSFORMER else Seq2Seq(gru)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATES[model])
    start = time.perf_counter()

    def rate(s: int) -> float:
        return min(1, (s + 1) / 40) * 0.5 * (1 + math.cos(math.pi * s / TRANSLATOR_STEPS))

    fit(network, optimizer, rate, TRANSLATOR_STEPS, TRANSLATOR_BATCH, seed, clip=1.0, smoothing=smoothing)
    seconds = round(time.perf_counter() - start, 1)
    return {"steps": TRANSLATOR_STEPS} | measured(network) | {"seconds": seconds}


@torch.no_grad()
def measured(network: Any) -> dict[str, Any]:
    """Exact matches, cross-entropy without smoothing, and mean largest probability of a word."""
    source, target = translations("validation", 1_000)
    written = generation.greedy(network.step, network.start(source), first=BOS, eos=EOS, max_length=40)
    logits, words = network(source, target[:, :-1]), target[:, 1:]
    surest = logits.softmax(dim=-1).amax(dim=-1)[words != PAD]
    return {
        "exactly right": exact_match(written, words, EOS).float().mean().item(),
        "loss": next_token_loss(logits, words).item(),
        "largest probability": surest.mean().item(),
    }


EXPERIMENTS = {"norms": norms, "translators": translators}
