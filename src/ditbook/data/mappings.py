"""Pairs of symbols under a mapping that is drawn anew for each sequence: what a model can only read in its context.

Tokens 0 to 15 are keys, the letters a to p; tokens 16 to 31 are values, A to P. A mapping is a permutation of the 16.

Letters: `N` sequences, `K` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SYMBOLS = 16  # keys, and values
VOCABULARY = 2 * SYMBOLS


def sequences(count: int, pairs: int, generator: torch.Generator) -> Tensor:
    """Sequences key, value, key, value, …, each of one mapping: (N, 2K).

    A sequence uses 2 to 16 different keys; the logarithm of their number is uniform. Its keys are drawn with
    replacement.

    Args:
        count: N.
        pairs: K.
        generator: of all random numbers, on the CPU.
    """
    import torch

    mapping, pool = (_permutations(count, generator) for _ in range(2))
    used = 2 * torch.exp(torch.rand(count, 1, generator=generator) * math.log(SYMBOLS / 2))
    chosen = (torch.rand(count, pairs, generator=generator) * used.round()).long()
    return _interleave(pool.gather(1, chosen), mapping)


def prompts(count: int, examples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences that end with a key, and the value of that key.

    Args:
        count: N.
        examples: pairs before the last key, all different; the last key is any of the 16, among them or not.
        generator: of all random numbers, on the CPU.

    Returns:
        Prompts (N, 2 · examples + 1), and their values (N,).

    Raises:
        ValueError: more examples than keys.
    """
    import torch

    _check(examples)
    mapping, keys = (_permutations(count, generator) for _ in range(2))
    last = torch.randint(SYMBOLS, (count, 1), generator=generator)
    tokens = _interleave(torch.cat([keys[:, :examples], last], dim=1), mapping)
    return tokens[:, :-1], tokens[:, -1]


def best_accuracy(examples: int) -> float:
    """How often the most probable value is right after so many examples, for `prompts`: it was shown, or is guessed.

    Raises:
        ValueError: more examples than keys.
    """
    _check(examples)
    return min(1.0, (examples + 1) / SYMBOLS)  # (5.10)


def decode(tokens: Iterable[int]) -> str:
    """The sequence in letters.

    >>> decode([0, 18, 2])
    'aCc'
    """
    return "".join(chr(ord("a") + token) if token < SYMBOLS else chr(ord("A") + token - SYMBOLS) for token in tokens)


def _check(examples: int) -> None:
    if not 0 <= examples <= SYMBOLS:
        raise ValueError(f"examples {examples} must be 0 to {SYMBOLS}: each shows another key")


def _permutations(count: int, generator: torch.Generator) -> Tensor:
    import torch

    return torch.rand(count, SYMBOLS, generator=generator).argsort(dim=1)


def _interleave(keys: Tensor, mapping: Tensor) -> Tensor:
    """Keys (N, K) and mappings (N, 16) → key, value, key, value, …, (N, 2K)."""
    import torch

    return torch.stack([keys, SYMBOLS + mapping.gather(1, keys)], dim=2).flatten(1)
