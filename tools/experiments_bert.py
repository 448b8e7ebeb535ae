"""Two experiments of chapter 4: BERT and its rival that reads left to right, on French captions and on the manual.

`masking` also takes the masking rule apart.

Letters: `N` captions, `T` tokens, `V` vocabulary, `D` width.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ditbook import rng
from ditbook.data import captions, tokenizer
from ditbook.data.tokenizer import BOS, EOS, PAD, SPECIAL, UNK
from ditbook.models.bert import BERT, BERTConfig
from ditbook.training.loop import TrainConfig, train
from ditbook.training.tasks import manual
from ditbook.training.tasks.masked_words import MaskedWords, accuracy, fill

LEFT = "left to right"
RULES = {  # of the chosen words: mask, random, same
    "80/10/10": (0.8, 0.1, 0.1),
    "100/0/0": (1.0, 0.0, 0.0),
    "80/20/0": (0.8, 0.2, 0.0),
    "80/0/20": (0.8, 0.0, 0.2),
    "0/50/50": (0.0, 0.5, 0.5),
    LEFT: (0.8, 0.1, 0.1),  # not used
}
SEEDS, STEPS, SWEEPS = 3, 600, 5
FLOORS = [("untrained", seed) for seed in range(SEEDS)] + [("no network", 0)]
CONFIG: dict[str, Any] = {"positions": 40, "width": 64, "depth": 2, "heads": 4}
TRAINING: dict[str, Any] = {"batch_size": 32, "learning_rate": 3e-3, "grad_clip": 1.0, "ema_decay": 0.99}
MANUAL: dict[str, Any] = {"vocabulary": 1000, "positions": 64, "width": 96, "depth": 2, "heads": 4}
MANUAL_STEPS = (2500, 5000)  # of one training, measured twice
MANUAL_TRAINING: dict[str, Any] = {"batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 100, "grad_clip": 1.0}
WORDS = captions.tokenizer("french")


@cache
def rows(split: str, size: int) -> Tensor:
    """French captions as tokens, with begin and end, (N, T)."""
    texts = captions.load(split, size, seed=0)["french"]
    return tokenizer.batch([WORDS.encode(text) for text in texts], bos=True, eos=True)


def trained(rule: str, seed: int, runs: Path) -> BERT:
    """A BERT of two layers, pre-trained on 8,000 captions by a rule; or its rival."""
    torch.manual_seed(seed)
    model = BERT(BERTConfig(vocabulary=len(WORDS), causal=rule == LEFT, **CONFIG))
    task, data = MaskedWords(next_sentence=False, parts=RULES[rule]), {"tokens": rows("train", 8000)}
    training = TrainConfig(steps=STEPS, seed=seed, **TRAINING)
    path = runs / f"masking-{rule.replace('/', '-').replace(' ', '-')}-{seed}.safetensors"
    return cast("BERT", train(model, task.loss, data, training, path=path).ema)


def on_the_manual(rule: str, seed: int, steps: int, runs: Path) -> dict[str, Any]:
    """Fractions of held-out gaps of the manual that are named rightly, with and without the text behind them."""
    torch.manual_seed(seed)
    model = BERT(BERTConfig(**MANUAL, causal=rule == LEFT))
    task, training = MaskedWords(next_sentence=False), TrainConfig(steps=steps, seed=seed, **MANUAL_TRAINING)
    path = runs / f"bert-{rule.replace('/', '-').replace(' ', '-')}-{seed}.safetensors"
    model = cast("BERT", train(model, task.loss, task.data(), training, path=path).ema)
    tokens, places = manual.gaps(2000, seed=1)
    truth = tokens[torch.arange(len(tokens)), places]
    return {
        "gaps": accuracy(fill(model, tokens, places), truth),
        "gaps, text before alone": accuracy(fill(model, tokens, places, right=False), truth),
    }


def numbers(words: list[str]) -> Tensor:
    """The tokens of these words, also where no space stands before them."""
    return torch.tensor([i for i, token in enumerate(WORDS.tokens) if token.strip() in words])


def one_place(wanted: Tensor, seed: int) -> Tensor:
    """In each row one of the places where `wanted` (N, T) is true, at random: (N,)."""
    return (rng.rand(tuple(wanted.shape), torch.Generator().manual_seed(seed), wanted.device) * wanted).argmax(dim=1)


@torch.no_grad()
def whole_sentence(model: BERT, tokens: Tensor, places: Tensor) -> Tensor:
    """log p of the sentence with each word of the vocabulary in the gap, by a causal model: (N, V)."""
    scores = []
    for word in range(model.config.vocabulary):
        filled = tokens.clone()
        filled[torch.arange(len(tokens)), places] = word
        log_p = model.word_logits(model.encode(filled[:, :-1])).log_softmax(dim=-1)
        each = log_p.gather(2, filled[:, 1:, None])[..., 0] * (tokens[:, 1:] != PAD)
        scores.append(each.sum(dim=1))
    return torch.stack(scores, dim=1)


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One ordinary word for each row of logits, by their probabilities: (N, V) → (N,)."""
    logits[:, : len(SPECIAL)] = -torch.inf
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


@torch.no_grad()
def write_left_to_right(model: BERT, count: int, generator: torch.Generator) -> Tensor:
    """Captions sampled word by word until the end token: (count, T)."""
    tokens = torch.full((count, 1), BOS)
    for _ in range(CONFIG["positions"] - 1):
        logits = model.word_logits(model.encode(tokens)[:, -1])
        logits[:, [PAD, BOS, UNK]] = -torch.inf
        word = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
        word[(tokens == EOS).any(dim=1)] = EOS
        tokens = torch.cat([tokens, word], dim=1)
    return tokens


@torch.no_grad()
def write_into_masks(model: BERT, like: Tensor, sweeps: int, generator: torch.Generator) -> Tensor:
    """Captions as long as those of `like`, (N, T): masks filled from left to right, then each word drawn anew.

    Source: Wang & Cho 2019, "BERT has a Mouth, and It Must Speak": Gibbs sampling.
    """
    inside = (like != PAD) & (like != BOS) & (like != EOS)
    tokens = torch.where(inside, UNK, like)
    for place in list(range(1, like.shape[1] - 1)) * (1 + sweeps):
        hidden = tokens.clone()
        hidden[inside[:, place], place] = UNK
        word = drawn(model.word_logits(model.encode(hidden)[:, place]), generator)
        tokens[:, place] = torch.where(inside[:, place], word, tokens[:, place])
    return tokens


def right(tokens: Tensor) -> float:
    """Fraction of captions that the grammar accepts."""
    good = 0
    for row in tokens.tolist():
        try:
            captions.parse_french(WORDS.decode(row))
            good += 1
        except ValueError:
            pass
    return good / len(tokens)


def probe(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor) -> float:
    """Balanced accuracy of a linear classifier on frozen features."""
    scale = StandardScaler().fit(train_x)
    linear = LogisticRegression(max_iter=500, class_weight="balanced").fit(scale.transform(train_x), train_y)
    return float(balanced_accuracy_score(y, linear.predict(scale.transform(x))))


@torch.no_grad()
def colours(encode: Callable[[Tensor], Tensor], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Features of each noun, and the colour word behind it."""
    nouns = torch.isin(tokens, numbers([noun for noun, _ in captions.NOUNS.values()]))
    names = {form: i for i, forms in enumerate(captions.ADJECTIVES.values()) for form in forms}
    index = torch.tensor([names.get(token.strip(), -1) for token in WORDS.tokens])
    return encode(tokens)[nouns], index[tokens.roll(-1, dims=1)[nouns]]


def spoiled(tokens: Tensor) -> Tensor:
    """The captions with one word in ten replaced by a random one."""
    generator, real = torch.Generator().manual_seed(5), tokens >= len(SPECIAL)
    other = len(SPECIAL) + rng.randint(len(WORDS) - len(SPECIAL), tuple(tokens.shape), generator, tokens.device)
    return torch.where(real & (rng.rand(tuple(tokens.shape), generator, tokens.device) < 0.1), other, tokens)


@torch.no_grad()
def wrong_words(encode: Callable[[Tensor], Tensor], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Features of each word of spoiled captions, and whether it was replaced."""
    read, real = spoiled(tokens), tokens >= len(SPECIAL)
    return encode(read)[real], (read != tokens)[real].long()


def probes(encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """What linear classifiers, fitted to 600 captions, read off the features of 600 others, with nothing masked."""
    seen, held_out = rows("train", 8000)[:600], rows("validation", 1000)[:600]
    return {
        "colour": probe(*colours(encode, seen), *colours(encode, held_out)),
        "wrong word": probe(*wrong_words(encode, seen), *wrong_words(encode, held_out)),
    }


def floor(kind: str, seed: int) -> dict[str, Any]:
    """What `probes` find where nothing was learned: in an untrained BERT, or with each word alone as its feature."""
    torch.manual_seed(seed)
    untrained = BERT(BERTConfig(vocabulary=len(WORDS), **CONFIG))
    alone = kind == "no network"
    found = probes((lambda tokens: F.one_hot(tokens, len(WORDS)).float()) if alone else untrained.encode)
    return {"rule": kind, "seed": seed, "steps": 0} | found


@torch.no_grad()
def doubts(model: BERT, tokens: Tensor) -> dict[str, float]:
    """Fraction of words in view of spoiled captions for which the head names another word than the one it reads."""
    read, real = spoiled(tokens), tokens >= len(SPECIAL)
    another = (model.word_logits(model.encode(read)).argmax(dim=-1) != read).double()
    return {
        "right words doubted": another[real & (read == tokens)].mean().item(),
        "wrong words doubted": another[read != tokens].mean().item(),
    }


def measure(rule: str, seed: int, runs: Path) -> dict[str, Any]:
    """One row of the experiment."""
    model = trained(rule, seed, runs)
    tokens = rows("validation", 1000)
    n, real = torch.arange(len(tokens)), tokens >= len(SPECIAL)
    articles = torch.isin(tokens, numbers(list(captions.ARTICLES)))
    row: dict[str, Any] = {"rule": rule, "seed": seed, "steps": STEPS}
    for name, wanted in (("words", real), ("articles", articles)):
        places = one_place(wanted, seed=1)
        row[name] = accuracy(fill(model, tokens, places), tokens[n, places])
        if rule == LEFT:
            few = slice(500)
            scores = whole_sentence(model, tokens[few], places[few])
            row[f"{name}, whole sentence"] = accuracy(scores, tokens[n, places][few])
    generator = torch.Generator().manual_seed(2)
    if rule == LEFT:
        row["written"] = right(write_left_to_right(model, 300, generator))
    if rule == "80/10/10":
        like = tokens[:300]
        row["written"] = right(write_into_masks(model, like, 0, generator))
        row[f"written, {SWEEPS} sweeps"] = right(write_into_masks(model, like, SWEEPS, generator))
    row |= probes(model.encode)
    if rule != LEFT:
        row |= doubts(model, tokens[:600])
    return row | {"parameters": sum(p.numel() for p in model.parameters())}
