"""Classifier-free guidance: one model trained with and without its condition, and the two predictions combined.

A null condition stands for "none": a class of its own, an empty text, zeros. A model that can be guided has a method
`null_condition(**condition)` that gives it for a batch of conditions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.gaussian import Model


def null_condition(model: Model, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own null condition for these conditions, each of the same shape.

    Raises:
        ValueError: the model has none.
    """
    if not hasattr(model, "null_condition"):
        raise ValueError(f"{type(model).__name__} has no null_condition(**condition), so it cannot go without one")
    return model.null_condition(**condition)


def drop_condition(
    condition: Mapping[str, Tensor], null: Mapping[str, Tensor], p: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Replace the condition of a random fraction `p` of the samples, all parts of it together, by the null condition.

    Args:
        condition: tensors (B, …): labels, tokens, embeddings, masks.
        null: the same names, each broadcastable to its condition.
        p: probability of each sample to lose its condition.
        generator: gives one uniform number for each sample.

    Raises:
        ValueError: other names in `null` than in `condition`.

    Source: Ho & Salimans 2022, algorithm 1.
    """
    _same_names(condition, null)
    if not condition:
        return {}
    first = next(iter(condition.values()))
    dropped = rng.rand((len(first),), generator, first.device) < p  # (B,)
    return {
        name: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[name], value)
        for name, value in condition.items()
    }


class ClassifierFreeGuidance:
    """Call a model with and without its condition, and extrapolate from the second prediction through the first.

    Args:
        model: `model(x, t, **condition)`.
        guidance_scale: 1 is the conditional model, 0 the unconditional one, more than 1 exaggerates the condition.
        null: for each condition, a tensor that broadcasts to it and means "none", or what to move away from (a
            negative prompt). By default `model.null_condition(**condition)`.
        channels: how many of the leading output channels are guided. By default all that predict the image; the
            official DiT code guides only the first three of four. The others stay as the conditional model has them.

    Source: Ho & Salimans 2022, equation 6; Peebles & Xie 2023, section 3.1, "Classifier-free guidance".
    """

    def __init__(
        self,
        model: Model,
        guidance_scale: float,
        null: Mapping[str, Tensor] | None = None,
        channels: int | None = None,
    ) -> None:
        self.model, self.guidance_scale, self.null, self.channels = model, guidance_scale, null, channels

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """(B, C, …), (B,), conditions (B, …) → guided output, with one call of the model on a batch of 2·B.

        Raises:
            ValueError: the conditions are not those that `null` names, or there is no null condition.
        """
        null = null_condition(self.model, condition) if self.null is None else self.null
        _same_names(condition, null)
        both = {name: torch.cat([value, null[name].expand_as(value)]) for name, value in condition.items()}
        conditional, unconditional = self.model(torch.cat([x, x]), torch.cat([t, t]), **both).chunk(2)
        n = x.shape[1] if self.channels is None else self.channels
        difference = conditional[:, :n] - unconditional[:, :n]
        guided = unconditional[:, :n] + self.guidance_scale * difference  # (16.13)
        return torch.cat([guided, conditional[:, n:]], dim=1)


def _same_names(condition: Mapping[str, Tensor], null: Mapping[str, Tensor]) -> None:
    if condition.keys() != null.keys():
        raise ValueError(f"conditions {sorted(condition)}, but null values are given for {sorted(null)}")
