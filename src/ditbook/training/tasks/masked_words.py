"""Pre-training on Python's manual: BERT's two tasks, or the next token for a rival that reads left to right.

The tokenizer knows every byte and so needs no unknown token: its number serves as the mask. The begin token is BERT's
[CLS], the end token its [SEP].
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ditbook.data import python_docs, tokenizer
from ditbook.data.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, BPETokenizer
from ditbook.models.bert import BERT
from ditbook.objectives.masking import IGNORED, mask_words, next_sentence_pairs, pretraining_loss
from ditbook.objectives.tokens import next_token_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

VOCABULARY = 1500
CLS, SEP, MASK = BOS, EOS, UNK
TOKENS = 64  # of a row of running text, [CLS] and [SEP] included
SENTENCE = 30  # tokens of the longest sentence; a longer one is cut
PAIRS = 20_000
DECORATION = re.compile(r"[*=\-~^+]{4,}")  # of headings and tables


@cache
def paragraphs(split: str) -> dict[str, list[str]]:
    """The running text of the manual by topic, each paragraph on one line and once: the manual repeats some.

    Headings, tables and paragraphs of fewer than 20 characters are left out.

    Raises:
        ValueError: as `python_docs.load`.
    """
    rows, seen, found = python_docs.load(split), set(), {}
    for topic, text in zip(rows["topic"], rows["text"], strict=True):
        found[topic] = []
        for part in python_docs.paragraphs(text):
            line = " ".join(part.split())
            if len(line) >= python_docs.SHORTEST and not DECORATION.search(line) and line not in seen:
                seen.add(line)
                found[topic].append(line)
    return found


@cache
def words() -> BPETokenizer:
    """Byte pairs of the train split."""
    return BPETokenizer.train((line for lines in paragraphs("train").values() for line in lines), VOCABULARY)


def running_text(split: str, step: int) -> Tensor:
    """Rows of 64 tokens: [CLS], 62 of running text, [SEP]. Each begins `step` tokens after the one before: (N, 64)."""
    rows = []
    for lines in paragraphs(split).values():
        ids, size = words().encode("\n".join(lines)), TOKENS - 2
        rows += [[CLS, *ids[at : at + size], SEP] for at in range(0, len(ids) - size + 1, step)]
    return torch.tensor(rows)


def sentences(split: str) -> tuple[list[list[int]], Tensor]:
    """Sentences of at most 30 tokens in the order of the text, and the number of the topic of each, (N,)."""
    rows, topics = [], []
    for topic, lines in enumerate(paragraphs(split).values()):
        for line in lines:
            for ids in _packed(line):
                rows.append(ids)
                topics.append(topic)
    return rows, torch.tensor(topics)


def _packed(line: str) -> Iterator[list[int]]:
    """The sentences of a paragraph; short ones are joined to the next as long as 30 tokens hold both."""
    ids: list[int] = []
    for sentence in re.split(r"(?<=[.:;?!])(?= )", line):
        more = words().encode(sentence)
        if ids and len(ids) + len(more) > SENTENCE:
            yield ids
            ids = []
        ids += more
        while len(ids) > SENTENCE:
            yield ids[:SENTENCE]
            ids = ids[SENTENCE:]
    if ids:
        yield ids


def join(first: list[list[int]], second: list[list[int]]) -> Batch:
    """Two sentences as one text: [CLS] first [SEP] second [SEP]; `tokens` and `segments`, (N, T) each."""
    tokens = tokenizer.batch([[CLS, *a, SEP, *b, SEP] for a, b in zip(first, second, strict=True)])
    start = torch.tensor([len(a) + 2 for a in first])
    segments = (torch.arange(tokens.shape[1]) >= start[:, None]) & (tokens != PAD)
    return {"tokens": tokens, "segments": segments.long()}


def pairs(split: str, count: int, seed: int) -> Batch:
    """`count` pairs of sentences: `tokens`, `segments` and `random`, 1 where the second sentence is a random one."""
    rows, topics = sentences(split)
    first, second, random = next_sentence_pairs(topics, count, torch.Generator().manual_seed(seed))
    return join([rows[i] for i in first.tolist()], [rows[i] for i in second.tolist()]) | {"random": random}


@dataclass(frozen=True, kw_only=True)
class MaskedWords(Task[BERT]):
    """Predict masked words, with or without pairs of sentences; a causal model predicts each next token instead."""

    next_sentence: bool  # pairs of sentences and the second loss, or running text
    parts: tuple[float, ...] = (0.8, 0.1, 0.1)  # mask, random, same

    def data(self) -> Batch:
        """20,000 pairs of sentences, or the running text of the train split, four times over."""
        return pairs("train", PAIRS, seed=0) if self.next_sentence else {"tokens": running_text("train", TOKENS // 4)}

    def loss(self, model: BERT, batch: Batch, context: Context) -> Tensor:
        """The sum of BERT's two losses, or the one of these that applies."""
        tokens = batch["tokens"]
        if model.config.causal:
            return next_token_loss(model.word_logits(model.encode(tokens[:, :-1])), tokens[:, 1:])
        hidden, labels = self.hide(tokens, context.generator)
        if not self.next_sentence:
            return next_token_loss(model.word_logits(model.encode(hidden)), labels, pad=IGNORED)
        return pretraining_loss(*model(hidden, segments=batch["segments"]), labels, batch["random"])
