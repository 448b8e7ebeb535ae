"""The symmetric contrastive loss of CLIP.

Letters: `B` pairs of image and text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(logits: Tensor) -> Tensor:
    """Each image must find its text, and each text its image: mean of the two cross-entropies, in nats.

    Args:
        logits: (B, B), the right pairs on the diagonal.

    Raises:
        ValueError: not square.

    Source: Radford et al. 2021, figure 3.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"logits of shape {tuple(logits.shape)}: as many images as texts are needed")
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2  # (8.3), (8.4)
