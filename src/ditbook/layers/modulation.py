"""Adaptive layer norm: the condition sets scale and shift.

Letters: `B` batch, `T` tokens, `D` width.
"""

import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6  # of every LayerNorm of a DiT


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm over the last dimension, without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale by 1 + `scale` and add `shift`, the same for every token of a sample.

    Args:
        x: normalized tokens, (B, T, D).
        shift: (B, D).
        scale: (B, D); zero leaves `x` as it is.

    Source: Perez et al. 2018 (FiLM); Peebles & Xie 2023, section 3.2, "adaLN".
    """
    return x * (1 + scale[:, None]) + shift[:, None]  # (16.6)
