"""Pre-training on Python's manual: BERT's two tasks, or the next token for a rival that reads left to right.

Letters: `B` batch, `T` tokens, `N` gaps, `V` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook.data.tokenizer import PAD, SPECIAL
from ditbook.models.bert import BERT
from ditbook.objectives.masking import IGNORED, mask_words, pretraining_loss
from ditbook.objectives.tokens import next_token_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task
from ditbook.training.tasks.manual import MASK, gaps, pairs, running_text

PAIRS = 20_000


@dataclass(frozen=True, kw_only=True)
class MaskedWords(Task[BERT]):
    """Predict masked words, with or without pairs of sentences; a causal model predicts each next token instead."""

    next_sentence: bool  # pairs of sentences and a second loss, or running text
    parts: Sequence[float] = (0.8, 0.1, 0.1)  # of the chosen words: mask, random, same

    splits = False  # a mean over the masked words, of which each part of a batch has another number

    def data(self) -> Batch:
        """20,000 pairs of sentences of the train split, or its running text, each token in four rows."""
        return pairs("train", PAIRS, seed=0) if self.next_sentence else {"tokens": running_text("train", step=8)}

    def loss(self, model: BERT, batch: Batch, context: Context) -> Tensor:
        """The sum of BERT's two losses, or the one of these that applies, or the loss of the next token."""
        tokens = batch["tokens"]
        if model.config.causal:
            return next_token_loss(model.word_logits(model.encode(tokens[:, :-1])), tokens[:, 1:])
        mask, random, same = self.parts
        hidden, labels = mask_words(
            tokens,
            context.generator,
            vocabulary=model.config.vocabulary,
            mask=MASK,
            special=range(len(SPECIAL)),
            parts=(mask, random, same),
        )
        x = model.encode(hidden, segments=batch.get("segments"))
        logits, labels = chosen(model, x, labels)
        if not self.next_sentence:
            return next_token_loss(logits, labels, pad=IGNORED)
        return pretraining_loss(logits, model.next_sentence(model.pool(x)), labels, batch["random"])

    def evaluate(self, model: BERT) -> dict[str, float]:
        """Fraction of held-out gaps that are filled with the right word, and of pairs that are judged rightly."""
        rows, places = gaps(2000, seed=1)
        words = accuracy(fill(model, rows, places), rows[torch.arange(len(rows)), places])
        metric = {f"right words in {len(rows):,} held-out gaps": round(words, 4)}
        if self.next_sentence:
            batch = pairs("validation", 2000, seed=1)
            with torch.no_grad():
                logits = model.next_sentence(model.pool(model.encode(batch["tokens"], segments=batch["segments"])))
            metric["right of 2,000 held-out pairs"] = round(accuracy(logits, batch["random"]), 4)
        return metric


def chosen(model: BERT, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Word logits and labels of a quarter of all places, among them those that have a label.

    Computing the logits elsewhere would be in vain. The number of places is fixed, so that no device has to wait.

    Args:
        model: whose `word_logits` are taken.
        x: features, (B, T, D).
        labels: (B, T), −100 where a place has none; a quarter of them have one at most.

    Returns:
        (1, B·T / 4, V) and (1, B·T / 4).
    """
    flat = labels.flatten()
    places = (flat != IGNORED).int().topk(len(flat) // 4).indices
    return model.word_logits(x.flatten(0, 1)[places])[None], flat[places][None]


@torch.no_grad()
def fill(model: BERT, tokens: Tensor, places: Tensor, *, right: bool = True) -> Tensor:
    """Logits of the word in one gap of each row, (N, V). A causal model reads what stands before the gap alone.

    Args:
        model: a BERT or its causal rival.
        tokens: (N, T).
        places: of the gaps, (N,).
        right: whether a BERT also reads what stands behind the gap; if not, it is padding.
    """
    rows = torch.arange(len(tokens), device=tokens.device)
    if model.config.causal:
        return model.word_logits(model.encode(tokens)[rows, places - 1])
    hidden = tokens.clone()
    hidden[rows, places] = MASK
    if not right:
        hidden[torch.arange(tokens.shape[1], device=tokens.device) > places[:, None]] = PAD
    return model.word_logits(model.encode(hidden)[rows, places])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of rows (N, K) whose largest logit is that of the label (N,)."""
    return (logits.argmax(dim=-1) == labels).double().mean().item()
