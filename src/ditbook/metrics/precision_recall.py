"""Precision and recall of sets of pictures: how many painted ones could be real, how many real ones could be painted.

Letters: `N` real pictures, `M` painted ones, `F` features.
Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models".
"""

import torch
from torch import Tensor


def precision_recall(real: Tensor, painted: Tensor, k: int = 3, batch_size: int = 1000) -> tuple[float, float]:
    """Share of painted pictures within the real ones' reach, and of real ones within that of the painted ones.

    A picture reaches as far as its k-th nearest neighbour of its own set.

    Args:
        real: features, (N, F).
        painted: features, (M, F).
        k: which neighbour; the paper's is 3.
        batch_size: rows compared at a time.

    Returns:
        Precision and recall, each from 0 to 1.

    Raises:
        ValueError: other shapes, values that are not finite, or not more pictures than `k`.
    """
    if real.ndim != 2 or painted.ndim != 2 or real.shape[1] != painted.shape[1]:
        raise ValueError(f"features {tuple(real.shape)} and {tuple(painted.shape)}; expected (N, F) and (M, F)")
    if not (real.isfinite().all() and painted.isfinite().all()):
        raise ValueError("the features hold values that are not finite; look at the images they come from")
    if k < 1 or min(len(real), len(painted)) <= k:
        raise ValueError(f"{len(real)} and {len(painted)} pictures are too few for neighbour {k}")
    a, b = real.detach().double(), painted.detach().double()
    return _within(b, a, k, batch_size), _within(a, b, k, batch_size)  # (17.8)


def _within(points: Tensor, around: Tensor, k: int, batch_size: int) -> float:
    """Share of `points` that lie in the reach of at least one of `around`."""
    reach = torch.cat([torch.cdist(part, around).kthvalue(k + 1, dim=1).values for part in around.split(batch_size)])
    inside = [(torch.cdist(part, around) <= reach).any(dim=1) for part in points.split(batch_size)]
    return torch.cat(inside).double().mean().item()
