"""How quality scales with compute: correlation, trend, cost of training and sampling, the best for a budget.

Compute is counted in multiply–adds (MACs); `ditbook.metrics.complexity` gives those of one forward pass.
Source: Peebles & Xie 2023, section 5 and figures 8 to 10; Kaplan et al. 2020 for power laws.
"""

import math
from collections.abc import Sequence


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Correlation of two lists, between −1 and 1.

    Raises:
        ValueError: lists of different length, fewer than two points, or a list that does not vary.
    """
    dx, dy = _centered(x, y)
    return _dot(dx, dy) / math.sqrt(_dot(dx, dx) * _dot(dy, dy))  # (18.1)


def trend(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the line with the least squared error in `y`.

    Raises:
        ValueError: as `pearson`.
    """
    dx, dy = _centered(x, y)
    slope = _dot(dx, dy) / _dot(dx, dx)
    return sum(y) / len(y) - slope * sum(x) / len(x), slope  # (18.2)


def power_law(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Exponent a and scale c of y = (c / x)^a: the line with the least squared error in log y over log x.

    Raises:
        ValueError: as `pearson`, a number that is not positive, or logarithms of `y` that do not change with `x`.

    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", equations 1.1 and 1.2.
    """
    if min(*x, *y) <= 0:
        raise ValueError("a power law is fitted to positive numbers")
    intercept, slope = trend([math.log(v) for v in x], [math.log(v) for v in y])
    if slope == 0:
        raise ValueError("a line without slope has no scale")
    return -slope, math.exp(-intercept / slope)  # (5.11)


def training_macs(macs: float, batch_size: int, steps: int) -> float:
    """MACs of a training, with `macs` those of one forward pass; a backward pass counts as two forward passes."""
    return 3 * macs * batch_size * steps  # (18.3)


def sampling_macs(macs: float, steps: int, guided: bool = False) -> float:
    """MACs of one sample: a forward pass of `macs` for each step, two with guidance."""
    return (2 if guided else 1) * macs * steps  # (18.5)


def frontier(costs: Sequence[float], scores: Sequence[float]) -> list[tuple[float, float]]:
    """The (cost, score) of all that no cheaper one beats, by rising cost; a lower score is better.

    Raises:
        ValueError: not one score for each cost.
    """
    best: list[tuple[float, float]] = []
    for cost, score in sorted(zip(costs, scores, strict=True)):
        if not best or score < best[-1][1]:
            best.append((cost, score))  # (18.4)
    return best


def _centered(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"need two lists of equal length, two points or more; got {len(x)} and {len(y)} numbers")
    if min(x) == max(x) or min(y) == max(y):
        raise ValueError("a list in which all numbers are equal has neither correlation nor trend")
    return [v - sum(x) / len(x) for v in x], [v - sum(y) / len(y) for v in y]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))
