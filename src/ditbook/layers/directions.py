"""Unit vectors, such as CLIP's: their size for diffusion, and ways between them.

Letters: `B` batch, `J` width.
Source: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents", sections 2.2 and 3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled(unit: Tensor) -> Tensor:
    """Unit vectors (..., J) → vectors whose numbers have a mean square of 1, as those of noise have.

    What trains on vectors and what generates them both pass through here; `unscaled` is the way back.
    """
    return math.sqrt(unit.shape[-1]) * unit  # (14.2)


def unscaled(x: Tensor) -> Tensor:
    """The unit vectors in the directions of vectors of any length, (..., J)."""
    return F.normalize(x, dim=-1)


def slerp(first: Tensor, last: Tensor, weight: float | Tensor) -> Tensor:
    """On the arc from one vector to another of the same length, at a fraction of the angle between them.

    Args:
        first: (..., J).
        last: (..., J), not opposite to `first`.
        weight: from 0, the first, to 1, the last; broadcasts to (..., 1).

    Returns:
        Vectors of that length, (..., J).

    Source: Shoemake 1985, "Animating Rotation with Quaternion Curves", section 3.3.
    """
    angle = F.cosine_similarity(first, last, dim=-1)[..., None].clamp(-1, 1).acos().clamp(min=1e-4)  # (..., 1)
    return (((1 - weight) * angle).sin() * first + (weight * angle).sin() * last) / angle.sin()  # (13.9), (14.11)


def turned(image: Tensor, before: Tensor, after: Tensor, weight: float | Tensor) -> Tensor:
    """A vector of an image, turned from what one caption says towards what another one says ("text diff").

    Args:
        image: unit vectors of images, (..., J).
        before: unit vectors of captions of these images, (..., J).
        after: unit vectors of the captions that they shall fit, (..., J).
        weight: fraction of the angle to the direction from `before` to `after`; the paper takes 0.25 to 0.5.

    Returns:
        Unit vectors, (..., J).

    Source: Ramesh et al. 2022, section 3.3.
    """
    return slerp(image, unscaled(after - before), weight)  # (14.12)


def closest(candidates: Tensor, text: Tensor) -> Tensor:
    """Of several unit vectors for each caption, the one most similar to the caption's.

    Args:
        candidates: (n, B, J).
        text: (B, J).

    Returns:
        (B, J).

    Source: Ramesh et al. 2022, section 2.2, with n = 2.
    """
    best = (candidates * text).sum(dim=-1).argmax(dim=0)  # (B,)  # (14.7)
    return candidates[best, torch.arange(len(text), device=text.device)]
