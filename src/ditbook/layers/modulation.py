"""Adaptive layer norm: the condition chooses the scale and the shift."""

import torch
from torch import Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale by 1 + `scale` and add `shift`, the same for every token of a sample.

    Args:
        x: normalised tokens, (B, T, D).
        shift: (B, D).
        scale: (B, D); zero leaves `x` as it is.

    Source: Perez et al. 2018 (FiLM); Peebles & Xie 2023, section 3.2, "adaLN".
    """
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])  # (16.6)
