"""The symmetric contrastive loss of CLIP.

Letters: `B` pairs of image and text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(logits: Tensor) -> Tensor:
    """Mean of two cross-entropies in nats: of the text for each image, and of the image for each text.

    An untrained model has about ln B (8.5). With cosine similarities times a scale a, no model is below
    ln(1 + (B − 1) exp(−2a)) (8.6).

    Args:
        logits: (B, B), the matching pairs on the diagonal.

    Raises:
        ValueError: not square.

    Source: Radford et al. 2021, figure 3.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"logits of shape {tuple(logits.shape)}: as many images as texts are needed")
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2  # (8.3), (8.4)
