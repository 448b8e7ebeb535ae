"""An exponential moving average of a model's parameters: the model that is sampled from and stored."""

import copy

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class EMA:
    """A copy of a model whose parameters follow those of the model.

    The decay grows from 0.1 to `decay` over the first steps, so that a short training is not dominated by its start.

    Args:
        model: its copy is `ema.model`, in evaluation mode and without gradients.
        decay: fraction of the old average that a step keeps; 0.9999 in the DiT paper, for 400,000 steps and more.

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
    def update(self, model: nn.Module, step: int, skip: Tensor | None = None) -> None:
        """Move the average towards `model` after training step `step` (0, 1, …).

        Args:
            skip: scalar on the model's device; 1 leaves the average as it is.
        """
        weight: float | Tensor = 1 - min(self.decay, (1 + step) / (10 + step))
        if skip is not None:
            weight = weight * (1 - skip)
        for average, parameter in zip(self.model.parameters(), model.parameters(), strict=True):
            _local(average).lerp_(_local(parameter), weight)


def _local(tensor: Tensor) -> Tensor:
    """The shard of this process of a parameter that is sharded alike in model and average, or the whole parameter."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
