"""Language modelling: the next token of Python's manual, by byte pairs."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ditbook.data import python_docs
from ditbook.data.tokenizer import BPETokenizer
from ditbook.layers.checks import check_positive
from ditbook.objectives.tokens import next_token_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

NOTHING = -1  # the target that does not count; padding is a token of its own, and never occurs


@cache
def text(split: str) -> str:
    """All topics of a split, a blank line between two.

    Raises:
        ValueError: as `python_docs.load`.
    """
    return "\n\n".join(python_docs.load(split)["text"])


@cache
def words(vocabulary: int) -> BPETokenizer:
    """Byte pairs of the train split.

    Raises:
        ValueError: as `BPETokenizer.train`.
    """
    return BPETokenizer.train([text("train")], vocabulary)


def windows(tokens: Tensor, length: int, step: int = 1) -> Tensor:
    """Pieces of a text, each `step` tokens after the one before: (T,) → (N, length), a view."""
    return tokens.unfold(0, length, step)


@torch.no_grad()
def surprise(model: Any, tokens: Tensor, longest: int) -> Tensor:
    """Minus the log-probability of each token of a text but the first: (T,) → (T − 1,), in nats.

    Each is predicted from at least longest / 2 tokens before it, where the text has as many, and at most `longest`.

    Args:
        model: tokens (B, T) → logits (B, T, V).
        tokens: the text.
        longest: tokens that the model reads at a time, even.
    """
    half, found = longest // 2, []
    for start in range(0, max(1, len(tokens) - 1), half):
        piece = tokens[max(0, start - half) : start + half + 1]
        new = len(tokens[start : start + half + 1]) - 1
        log_p = model(piece[None, :-1]).log_softmax(dim=-1)[0, -new:]
        found.append(-log_p.gather(1, piece[-new:, None])[:, 0])  # (5.1)
    return torch.cat(found)


@dataclass(frozen=True, kw_only=True)
class ContinueManual(Task[Any]):
    """Predict each token of the manual from those before it."""

    vocabulary: int  # of the tokenizer
    length: int  # tokens that are read at a time

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "vocabulary", "length")

    def data(self) -> Batch:
        """Every piece of length + 1 tokens of the train split."""
        tokens = torch.tensor(words(self.vocabulary).encode(text("train")))
        return {"tokens": windows(tokens, self.length + 1)}

    def loss(self, model: Any, batch: Batch, context: Context) -> Tensor:
        """Cross-entropy of the next token."""
        tokens = batch["tokens"]
        return next_token_loss(model(tokens[:, :-1]), tokens[:, 1:], pad=NOTHING)

    def evaluate(self, model: Any) -> dict[str, float]:
        """Perplexity per character of the held-out topics."""
        held_out = text("validation")
        tokens = torch.tensor(words(self.vocabulary).encode(held_out))
        nats = surprise(model, tokens, self.length).sum() / (len(held_out) - 1)
        return {"perplexity per character of the held-out topics": round(nats.exp().item(), 3)}  # (5.7)
