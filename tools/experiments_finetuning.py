"""The experiment `fine-tuning` of chapter 4: which French captions have a fault of gender, from few labels or many.

Letters: `N` captions, `T` tokens, `V` vocabulary, `D` width.
"""

import copy
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import experiments_bert as bert
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from ditbook.data import captions
from ditbook.data.tokenizer import PAD
from ditbook.models.bert import BERT, BERTConfig

LABELS = (32, 64, 128, 256, 512, 1024, 2048, 8000)
SEEDS, STEPS, BATCH, RATE = 3, 200, 16, 1e-3
LONG = STEPS + bert.STEPS * bert.TRAINING["batch_size"] // BATCH  # from scratch, as many captions as with pre-training
LONG_LABELS = (256, 2048, 8000)


def other_gender() -> Tensor:
    """For each token the one of the other gender, (V,), or itself where there is none: "petit" and "petite"."""
    number = {token: index for index, token in enumerate(bert.WORDS.tokens)}
    swap = torch.arange(len(number))
    for masculine, feminine in [captions.ARTICLES, *captions.ADJECTIVES.values()]:
        for space in ("", " "):
            one, two = number.get(space + masculine), number.get(space + feminine)
            if one is not None and two is not None:
                swap[one], swap[two] = two, one
    return swap


def labelled(split: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Captions (N, T), and labels (N,): 1 where one word, at random, has the wrong gender; about half do."""
    tokens, swap = bert.rows(split, count), other_gender()
    wrong = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed))
    n, place = torch.arange(count), bert.one_place(swap[tokens] != tokens, seed)
    spoiled = tokens.clone()
    spoiled[n, place] = swap[tokens[n, place]]
    return torch.where(wrong[:, None] == 1, spoiled, tokens), wrong


def mean_features(model: BERT, tokens: Tensor) -> Tensor:
    """The mean of the features of all tokens that are not padding: (N, T) → (N, D)."""
    real = (tokens != PAD)[..., None]
    return (model.encode(tokens) * real).sum(dim=1) / real.sum(dim=1)


def tuned(model: BERT, x: Tensor, y: Tensor, seed: int, steps: int) -> nn.Module:
    """The model with a linear classifier on its mean features, all layers trained; the rate falls linearly."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = nn.Linear(model.config.width, 2)
    whole = nn.ModuleList([model, head])
    optimizer = torch.optim.AdamW(whole.parameters())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * (1 - step / steps)
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        loss = F.cross_entropy(head(mean_features(model, x[rows])), y[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        optimizer.step()
    return whole


@torch.no_grad()
def right(whole: nn.Module, x: Tensor, y: Tensor) -> float:
    model, head = whole
    return (head(mean_features(model, x)).argmax(dim=1) == y).double().mean().item()


def linear(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor) -> float:
    """Accuracy of a linear classifier alone."""
    return float(LogisticRegression(max_iter=1000).fit(train_x, train_y).score(x, y))


def perceptron(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, seed: int) -> float:
    """Accuracy of a perceptron with 64 hidden units, trained until its loss stops falling."""
    start = MLPClassifier(64, learning_rate_init=3e-3, max_iter=2000, random_state=seed)
    return float(start.fit(train_x, train_y).score(x, y))


def counts(tokens: Tensor) -> Tensor:
    """How often each word stands in each caption, (N, V)."""
    return torch.stack([row.bincount(minlength=len(bert.WORDS)) for row in tokens]).float()


@cache
def pretrained(seed: int, runs: Path) -> BERT:
    return bert.trained("80/10/10", seed, runs).requires_grad_(True)


def measurements(seed: int, runs: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """For each row of the experiment its key, and a function that measures the accuracy on 1,000 held-out captions."""
    x, y = labelled("train", 8000, seed=10 + seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held_out = labelled("validation", 1000, seed=4)
    torch.manual_seed(100 + seed)
    fresh = BERT(BERTConfig(vocabulary=len(bert.WORDS), **bert.CONFIG))
    for count in LABELS:
        few = x[order[:count]], y[order[:count]]
        for start, model in (("pre-trained", partial(pretrained, seed, runs)), ("from scratch", lambda: fresh)):
            key = {"seed": seed, "labels": count, "start": start}
            yield (
                key | {"trained": "all layers", "steps": STEPS},
                lambda model=model, few=few: right(tuned(copy.deepcopy(model()), *few, seed, STEPS), *held_out),
            )
            yield (
                key | {"trained": "classifier", "steps": 0},
                lambda model=model, few=few: frozen(model(), few, held_out),
            )
        if count in LONG_LABELS:
            yield (
                {"seed": seed, "labels": count, "start": "from scratch", "trained": "all layers", "steps": LONG},
                lambda few=few: right(tuned(copy.deepcopy(fresh), *few, seed, LONG), *held_out),
            )
        bags = counts(few[0]), few[1], counts(held_out[0]), held_out[1]
        key = {"seed": seed, "labels": count, "start": "bag of words", "steps": 0}
        yield key | {"trained": "classifier"}, lambda bags=bags: linear(*bags)
        yield key | {"trained": "perceptron"}, lambda bags=bags: perceptron(*bags, seed)


@torch.no_grad()
def frozen(model: BERT, few: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> float:
    """Accuracy of a linear classifier on the features of a model that stays as it is."""
    return linear(mean_features(model, few[0]), few[1], mean_features(model, held_out[0]), held_out[1])
