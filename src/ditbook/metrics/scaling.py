"""How quality goes with computation: correlation, trend, what a training and a picture cost, the best for a budget.

Computation is counted in multiply–adds (MACs); `ditbook.metrics.complexity` gives those of one forward pass.
Source: Peebles & Xie 2023, section 5 and figures 8 to 10.
"""

import math
from collections.abc import Sequence


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Correlation of two lists, between −1 and 1. (18.1)

    Raises:
        ValueError: lists of different length, fewer than two points, or a list that does not vary.
    """
    dx, dy = _centred(x, y)
    return _dot(dx, dy) / math.sqrt(_dot(dx, dx) * _dot(dy, dy))


def trend(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the line with the least squared error in `y`. (18.2)

    Raises:
        ValueError: as `pearson`.
    """
    dx, dy = _centred(x, y)
    slope = _dot(dx, dy) / _dot(dx, dx)
    return sum(y) / len(y) - slope * sum(x) / len(x), slope


def training_macs(macs: float, batch_size: int, steps: int) -> float:
    """What a training costs: a backward pass is counted as two forward passes. (18.3)"""
    return 3 * macs * batch_size * steps


def sampling_macs(macs: float, steps: int, guided: bool = False) -> float:
    """What a picture costs: one forward pass for each step, two with guidance. (18.5)"""
    return (2 if guided else 1) * macs * steps


def frontier(costs: Sequence[float], scores: Sequence[float]) -> list[tuple[float, float]]:
    """The (cost, score) of all that no cheaper one beats, by rising cost; a lower score is better. (18.4)"""
    best: list[tuple[float, float]] = []
    for cost, score in sorted(zip(costs, scores, strict=True)):
        if not best or score < best[-1][1]:
            best.append((cost, score))
    return best


def _centred(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"need two lists of equal length, two points or more; got {len(x)} and {len(y)} numbers")
    if min(x) == max(x) or min(y) == max(y):
        raise ValueError("a list in which all numbers are equal has neither correlation nor trend")
    return [v - sum(x) / len(x) for v in x], [v - sum(y) / len(y) for v in y]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))
