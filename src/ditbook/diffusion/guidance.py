"""Classifier-free guidance: a wrapper that makes one model out of a conditional and an unconditional one."""

from collections.abc import Callable

import torch
from torch import Tensor


class ClassifierFreeGuidance:
    """Ask a model twice, with and without its condition, and go further in the direction of the difference.

    Args:
        model: `model(x, t, **condition)`.
        guidance_scale: 1 is the conditional model, 0 the unconditional one, more than 1 exaggerates the condition.
        null: for each condition, the value that means "none", such as `{"y": 10}`.
        channels: how many of the leading output channels are guided. By default all that predict noise; the
            official DiT code guides only the first three of four. The others stay as the conditional model has them.

    Source: Ho & Salimans 2022, equation 6; Peebles & Xie 2023, section 3.1, "Classifier-free guidance".
    """

    def __init__(
        self, model: Callable[..., Tensor], guidance_scale: float, null: dict[str, int], channels: int | None = None
    ) -> None:
        self.model, self.guidance_scale, self.null, self.channels = model, guidance_scale, null, channels

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """(B, C, …), (B,), conditions (B, …) → guided output, with one call of the model on a batch of 2·B.

        Raises:
            ValueError: the conditions are not those that `null` names.
        """
        if condition.keys() != self.null.keys():
            raise ValueError(f"conditions {sorted(condition)}, but null values are given for {sorted(self.null)}")
        both = {name: torch.cat([c, torch.full_like(c, self.null[name])]) for name, c in condition.items()}
        with_condition, without = self.model(torch.cat([x, x]), torch.cat([t, t]), **both).chunk(2)
        n = x.shape[1] if self.channels is None else self.channels
        guided = without[:, :n] + self.guidance_scale * (with_condition[:, :n] - without[:, :n])  # (16.13)
        return torch.cat([guided, with_condition[:, n:]], dim=1)
