"""Python's manual as rows of tokens, for BERT: running text, sentences, and pairs of these.

The tokenizer knows every byte and so needs no unknown token: its number serves as the mask. The begin token is BERT's
[CLS], the end token its [SEP].
"""

import itertools
import re
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from ditbook.data import python_docs, splits, tokenizer
from ditbook.data.tokenizer import BOS, EOS, PAD, UNK, BPETokenizer
from ditbook.objectives.masking import next_sentence_pairs
from ditbook.training.loop import Batch

VOCABULARY = 1000
CLS, SEP, MASK = BOS, EOS, UNK
TOKENS = 32  # of a row of running text, [CLS] and [SEP] included
SENTENCE = 30  # tokens of the longest sentence; a longer one is cut
DECORATION = re.compile(r"[*=\-~^+]{4,}")  # of headings and tables
SPLITS = ("train", "validation")


@cache
def paragraphs() -> list[tuple[str, str]]:
    """Topic and text of the manual's paragraphs, each on one line and once: the manual repeats some.

    Headings, tables and paragraphs of fewer than 20 characters are left out.
    """
    found: dict[str, str] = {}
    for topic, text in sorted(python_docs.topics().items()):
        for part in python_docs.paragraphs(text):
            line = " ".join(part.split())
            if len(line) >= python_docs.SHORTEST and not DECORATION.search(line):
                found.setdefault(line, topic)
    return [(topic, line) for line, topic in found.items()]


def held_out(line: str) -> bool:
    """Whether a paragraph is kept from training: about one in eight is."""
    return splits.held_out(line, one_in=8)


def documents(split: str) -> list[list[str]]:
    """The paragraphs of a split; those that follow one another in one topic stand in one list.

    Raises:
        ValueError: the split is neither "train" nor "validation".
    """
    splits.check_split(split, SPLITS, "the paragraphs")
    runs = itertools.groupby(paragraphs(), lambda row: (row[0], held_out(row[1])))
    return [[line for _, line in run] for (_, kept), run in runs if kept == (split == "validation")]


@cache
def words() -> BPETokenizer:
    """Byte pairs of the train split."""
    return BPETokenizer.train((line for lines in documents("train") for line in lines), VOCABULARY)


def running_text(split: str, step: int) -> Tensor:
    """Rows of 32 tokens: [CLS], 30 of running text, [SEP]. Each begins `step` tokens after the one before: (N, 32)."""
    rows, size = [], TOKENS - 2
    for lines in documents(split):
        ids = words().encode("\n".join(lines))
        rows += [[CLS, *ids[at : at + size], SEP] for at in range(0, len(ids) - size + 1, step)]
    return torch.tensor(rows)


def sentences(split: str) -> tuple[list[list[int]], Tensor]:
    """Sentences of at most 30 tokens in the order of the text, and the number of the document of each, (N,)."""
    rows, numbers = [], []
    for number, lines in enumerate(documents(split)):
        found = [ids for line in lines for ids in _packed(line)]
        rows += found
        numbers += [number] * len(found)
    return rows, torch.tensor(numbers)


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
    rows, numbers = sentences(split)
    first, second, random = next_sentence_pairs(numbers, count, torch.Generator().manual_seed(seed))
    return join([rows[i] for i in first.tolist()], [rows[i] for i in second.tolist()]) | {"random": random}


def gaps(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Held-out rows of running text, and in each the place of one word that is a single token.

    The place is between the 8th and the 24th of 32 tokens: there is text on both sides.

    Returns:
        (count, 32) and (count,). A row can come more than once, with another place.
    """
    generator, names = torch.Generator().manual_seed(seed), words().tokens
    begins = torch.tensor([name[:1] == " " and name[1:].isalpha() and len(name) > 2 for name in names])
    goes_on = torch.tensor([name[:1].isalnum() or name[:1] in "_-\ufffd" for name in names])
    rows = running_text("validation", TOKENS // 2)
    whole = begins[rows] & ~goes_on[rows.roll(-1, dims=1)]
    whole[:, :8] = whole[:, 24:] = False
    found = whole.nonzero()
    chosen = found[torch.randperm(len(found), generator=generator)[:count]]
    return rows[chosen[:, 0]], chosen[:, 1]
