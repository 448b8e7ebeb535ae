"""An exponential moving average of a model's weights: what the samples are drawn with."""

import copy

import torch
from torch import nn


class EMA:
    """A slowly following copy of a model.

    The decay grows from 0.1 to `decay` over the first steps, so that a short training is not dominated by its start.

    Args:
        model: what is followed; its copy is `ema.model`, in evaluation mode.
        decay: share of the old average that a step keeps; 0.9999 in the DiT paper, for 400,000 steps and more.

    Raises:
        ValueError: `decay` is outside [0, 1).

    Source: Peebles & Xie 2023, section 4; Ho et al. 2020, section 4.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards `model` after training step `step` (0, 1, …); all tensors in one call."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
