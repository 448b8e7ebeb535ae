"""Precision and recall of sets of images: how many generated ones could be real, how many real ones generated.

Letters: `N` real images, `M` generated ones, `F` features.
Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models".
"""

import torch
from torch import Tensor


def precision_recall(real: Tensor, generated: Tensor, k: int = 3, batch_size: int = 1000) -> tuple[float, float]:
    """Fraction of generated images within the real manifold, and of real images within the generated manifold.

    The manifold of a set is estimated by balls around its images, each as large as the distance to the image's k-th
    nearest neighbor in the set.

    Args:
        real: features, (N, F).
        generated: features, (M, F).
        k: which neighbor; the paper's is 3.
        batch_size: rows compared at a time.

    Returns:
        Precision and recall, each from 0 to 1.

    Raises:
        ValueError: other shapes, values that are not finite, or not more images than `k`.
    """
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"features {tuple(real.shape)} and {tuple(generated.shape)}; expected (N, F) and (M, F)")
    if not (real.isfinite().all() and generated.isfinite().all()):
        raise ValueError(
            "the features hold values that are not finite; check the images and the network they come from"
        )
    if k < 1 or min(len(real), len(generated)) <= k:
        raise ValueError(f"{len(real)} and {len(generated)} images are too few for neighbor {k}")
    device = "cpu" if real.device.type == "mps" else real.device  # MPS has no float64
    a, b = real.detach().to(device).double(), generated.detach().to(device).double()
    return _fraction_within(b, a, k, batch_size), _fraction_within(a, b, k, batch_size)  # (17.8)


def _fraction_within(points: Tensor, centers: Tensor, k: int, batch_size: int) -> float:
    """Fraction of `points` that lie in the ball of at least one of `centers`."""
    parts = centers.split(batch_size)
    radius = torch.cat([torch.cdist(part, centers).kthvalue(k + 1, dim=1).values for part in parts])
    inside = [(torch.cdist(part, centers) <= radius).any(dim=1) for part in points.split(batch_size)]
    return torch.cat(inside).double().mean().item()
