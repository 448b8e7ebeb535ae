"""Text as numbers: by characters, by words, or by byte pairs learned from a corpus.

All three have one interface. The first four numbers are special: padding, begin, end, and unknown.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)
# A word with the space before it and an apostrophe after it; or one other sign; or one space. Nothing is lost.
PIECE = re.compile(r" ?\w+(?:-\w+)*'?| ?[^\w\s]|\s")


def pieces(text: str) -> list[str]:
    """Cut a text into words, signs and spaces that make the text again when they are joined.

    >>> pieces("a star left of d'un")
    ['a', ' star', ' left', ' of', " d'", 'un']
    """
    return PIECE.findall(text)


def batch(rows: Sequence[Sequence[int]], *, bos: bool = False, eos: bool = False) -> Tensor:
    """Stack rows of numbers, filled up on the right with padding: (B, T), T the longest row.

    Args:
        rows: B lists of tokens.
        bos: put the begin token before each row.
        eos: put the end token after each row.

    Raises:
        ValueError: no row.
    """
    import torch

    if not rows:
        raise ValueError("there is no row to stack")
    whole = [[BOS] * bos + list(row) + [EOS] * eos for row in rows]
    longest = max(map(len, whole))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in whole], dtype=torch.int64)


class CharTokenizer:
    """One token for each character of the corpus.

    Args:
        symbols: the characters, in the order of their numbers.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self.tokens = [*SPECIAL, *symbols]
        self._ids = {token: index for index, token in enumerate(self.tokens) if index >= len(SPECIAL)}

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """The characters of `texts`, sorted."""
        return cls(sorted(set().union(*texts)))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, *, unknown: str = "error") -> list[int]:
        """Turn text into numbers.

        Args:
            text: any text.
            unknown: what happens to a piece that the vocabulary lacks: "error", or "unk" for the unknown token.

        Raises:
            ValueError: an unknown piece, with its position in the text, or `unknown` is neither of the two.
        """
        if unknown not in ("error", "unk"):
            raise ValueError(f"unknown must be 'error' or 'unk', not {unknown!r}")
        ids, at = [], 0
        for piece in self.split(text):
            if piece not in self._ids and unknown == "error":
                raise ValueError(f"{piece!r} at character {at} is not in the vocabulary; unknown='unk' would allow it")
            ids.append(self._ids.get(piece, UNK))
            at += len(piece)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Turn numbers into text; padding, begin and end are left out, an unknown token reads `<unk>`."""
        return "".join(self.tokens[index] for index in ids if index not in (PAD, BOS, EOS))

    def split(self, text: str) -> Sequence[str]:
        """The pieces that become tokens."""
        return text


class WordTokenizer(CharTokenizer):
    """One token for each word of the corpus, with the space before it. Words are those of `pieces`."""

    @classmethod
    def train(cls, texts: Iterable[str]) -> WordTokenizer:
        """The words of `texts`, frequent ones first."""
        counts = Counter(piece for text in texts for piece in pieces(text))
        return cls(sorted(counts, key=lambda piece: (-counts[piece], piece)))

    def split(self, text: str) -> Sequence[str]:
        """The words of the text."""
        return pieces(text)


class BPETokenizer:
    """Byte-pair encoding: starts from the 256 bytes and knows every text.

    Args:
        merges: pairs of tokens, in the order in which they were learned; merge i makes token 4 + 256 + i.

    Source: Sennrich et al. 2016, on bytes as in Radford et al. 2019 (GPT-2).
    """

    def __init__(self, merges: Sequence[tuple[int, int]]) -> None:
        self.merges = list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._bytes = [b""] * len(SPECIAL) + [bytes([byte]) for byte in range(256)]
        for left, right in self.merges:
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._known: dict[str, list[int]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> BPETokenizer:
        """Merge the most frequent pair of neighbours, again and again (of equals, the one with the smaller numbers).

        Args:
            texts: the corpus.
            vocabulary: tokens in the end, special ones and the 256 bytes included. Fewer, if the corpus is used up.

        Raises:
            ValueError: fewer tokens than special ones and bytes.
        """
        first = len(SPECIAL) + 256
        if vocabulary < first:
            raise ValueError(f"a vocabulary of {vocabulary} is too small: {first} tokens are there before any merge")
        counts = Counter(piece for text in texts for piece in pieces(text))
        words = [([byte + len(SPECIAL) for byte in piece.encode()], count) for piece, count in counts.items()]
        pairs: Counter[tuple[int, int]] = Counter()
        where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for index, (word, count) in enumerate(words):
            for pair in itertools.pairwise(word):
                pairs[pair] += count
                where[pair].add(index)
        merges: list[tuple[int, int]] = []
        while len(merges) < vocabulary - first and pairs:
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            merges.append(best)
            for index in where.pop(best):
                word, count = words[index]
                for pair in itertools.pairwise(word):
                    pairs[pair] -= count
                word[:] = _merged(word, best, first + len(merges) - 1)
                for pair in itertools.pairwise(word):
                    pairs[pair] += count
                    where[pair].add(index)
            pairs = +pairs  # drops what no longer occurs
        return cls(merges)

    @property
    def tokens(self) -> list[str]:
        """The tokens as text; bytes that are no text by themselves read �."""
        return [*SPECIAL, *(token.decode(errors="replace") for token in self._bytes[len(SPECIAL) :])]

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Turn any text into numbers: in each piece the earliest learned merge first."""
        return [index for piece in pieces(text) for index in self._encode(piece)]

    def _encode(self, piece: str) -> list[int]:
        if piece not in self._known:
            word = [byte + len(SPECIAL) for byte in piece.encode()]
            while pairs := [pair for pair in itertools.pairwise(word) if pair in self._ranks]:
                best = min(pairs, key=self._ranks.__getitem__)
                word = _merged(word, best, len(SPECIAL) + 256 + self._ranks[best])
            self._known[piece] = word
        return self._known[piece]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn numbers into text; special tokens are left out, and bytes that are no text read �."""
        return b"".join(self._bytes[index] for index in ids).decode(errors="replace")


def _merged(word: list[int], pair: tuple[int, int], token: int) -> list[int]:
    """Replace each occurrence of the pair, from left to right, by the token."""
    result: list[int] = []
    for index in word:
        if result and (result[-1], index) == pair:
            result[-1] = token
        else:
            result.append(index)
    return result
