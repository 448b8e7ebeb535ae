"""Guidance: two predictions combined, or one moved by a classifier, each a model that is called like the one it wraps.

A null condition stands for "none": a class of its own, an empty text, zeros. A model that can be guided without another
one has a method `null_condition(**condition)` that gives it for a batch of conditions.
Letters: `B` batch, `C` channels, `K` classes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ditbook import rng
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.process import Model, check_each, check_fits

Scale = float | Callable[[Tensor], Tensor]  # of guidance, for all timesteps or as a function (B,) → (B,) of them


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
        ValueError: other names in `null` than in `condition`, or shapes that do not fit.

    Source: Ho & Salimans 2022, algorithm 1.
    """
    _check_null(condition, null)
    if not condition:
        return {}
    first = next(iter(condition.values()))
    for name, value in condition.items():
        if value.ndim == 0 or len(value) != len(first):
            raise ValueError(f"condition {name!r} of shape {tuple(value.shape)} for {len(first)} samples")
    dropped = rng.rand((len(first),), generator, first.device) < p  # (B,)
    return {
        name: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[name], value)
        for name, value in condition.items()
    }


class _Extrapolation:
    """What guidance by a second, worse prediction has in common."""

    def __init__(self, guidance_scale: Scale, channels: int | None, rescale: float) -> None:
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie in 0 to 1, got {rescale}")
        self.guidance_scale, self.channels, self.rescale = guidance_scale, channels, rescale

    def _scale(self, t: Tensor, like: Tensor) -> float | Tensor:
        if not callable(self.guidance_scale):
            return self.guidance_scale
        scale = self.guidance_scale(t)
        check_each(scale, like, "guidance scales")
        return scale.to(like.dtype).view(-1, *[1] * (like.ndim - 1))

    def _rescaled(self, guided: Tensor, better: Tensor) -> Tensor:
        if not self.rescale:
            return guided
        dims = tuple(range(1, guided.ndim))
        wanted, found = (values.std(dims, keepdim=True) for values in (better, guided))
        ratio = wanted / found.clamp(min=torch.finfo(found.dtype).tiny)
        return self.rescale * ratio * guided + (1 - self.rescale) * guided


class ClassifierFreeGuidance(_Extrapolation):
    """Call a model with and without its condition, and extrapolate from the second prediction through the first.

    Args:
        model: `model(x, t, **condition)`.
        guidance_scale: 1 is the conditional model, 0 the unconditional one, more than 1 exaggerates the condition. Or a
            function of the timesteps, such as `interval`.
        null: for each condition, a tensor that broadcasts to it and means "none", or what to move away from (a
            negative prompt). By default `model.null_condition(**condition)`.
        channels: how many of the leading output channels are guided. By default all that predict the image; the
            official DiT code guides only the first three of four. The others stay as the conditional model has them.
        rescale: φ, from 0, no change, to 1: each sample's guided channels get the standard deviation that the
            conditional prediction has.

    Raises:
        ValueError: `rescale` is out of range.

    Source: Ho & Salimans 2022, equation 6; Peebles & Xie 2023, section 3.1, "Classifier-free guidance"; Lin et al.
    2024, section 3.4, for `rescale`.
    """

    def __init__(
        self,
        model: Model,
        guidance_scale: Scale,
        null: Mapping[str, Tensor] | None = None,
        channels: int | None = None,
        *,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(guidance_scale, channels, rescale)
        self.model, self.null = model, null

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """(B, C, …), (B,), conditions (B, …) → guided output, with one call of the model on a batch of 2·B.

        Raises:
            ValueError: the conditions are not those that `null` names, there is no null condition, or it does not fit.
        """
        check_each(t, x, "timesteps")
        null = null_condition(self.model, condition) if self.null is None else self.null
        _check_null(condition, null)
        both = {name: torch.cat([value, null[name].expand_as(value)]) for name, value in condition.items()}
        conditional, unconditional = self.model(torch.cat([x, x]), torch.cat([t, t]), **both).chunk(2)
        n = x.shape[1] if self.channels is None else self.channels
        difference = conditional[:, :n] - unconditional[:, :n]
        guided = unconditional[:, :n] + self._scale(t, x) * difference  # (16.13)
        guided = self._rescaled(guided, conditional[:, :n])  # (12.14)
        return torch.cat([guided, conditional[:, n:]], dim=1)


class Autoguidance(_Extrapolation):
    """Extrapolate from the prediction of a worse model of the same images through that of the model.

    Args:
        model: `model(x, t, **condition)`.
        guide: a smaller model, or the model after less training, called in the same way. It predicts the same quantity,
            and may lack the variance head.
        guidance_scale: 1 is the model, 0 the guide. Or a function of the timesteps, such as `interval`.
        channels: as for `ClassifierFreeGuidance`.
        rescale: φ, from 0, no change, to 1: each sample's guided channels get the standard deviation that the model's
            prediction has.

    Raises:
        ValueError: `rescale` is out of range.

    Source: Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself".
    """

    def __init__(
        self,
        model: Model,
        guide: Model,
        guidance_scale: Scale,
        channels: int | None = None,
        *,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(guidance_scale, channels, rescale)
        self.model, self.guide = model, guide

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """(B, C, …), (B,), conditions (B, …) → guided output, with one call of the model and one of the guide."""
        better, worse = self.model(x, t, **condition), self.guide(x, t, **condition)
        n = x.shape[1] if self.channels is None else self.channels
        guided = worse[:, :n] + self._scale(t, x) * (better[:, :n] - worse[:, :n])  # (12.13)
        return torch.cat([self._rescaled(guided, better[:, :n]), better[:, n:]], dim=1)


def interval(guidance_scale: float, low: float, high: float) -> Callable[[Tensor], Tensor]:
    """A guidance scale in an interval of timesteps, and 1, no guidance, outside.

    Args:
        guidance_scale: inside.
        low, high: timesteps, the first excluded; `GaussianDiffusion.timesteps_of` gives those of noise levels.

    Source: Kynkäänniemi et al. 2024, section 3.
    """

    def scale(t: Tensor) -> Tensor:
        inside = (t > low) & (t <= high)
        return 1 + (guidance_scale - 1) * inside.float()

    return scale


class ClassifierGuidance:
    """Move what a model predicts by the gradient, at the noisy image, of the log probability of a label.

    Args:
        model: `model(x, t, **condition)`; one without classes is wrapped in `lambda x, t, y: model(x, t)`.
        classifier: `classifier(x, t)` → logits of noisy images, (B, K).
        diffusion: the process; it says what the model predicts.
        scale: factor of the gradient; 0 is no guidance and 1 is Bayes' rule.

    Source: Dhariwal & Nichol 2021, algorithm 2, whose ε − √(1 − ᾱ) ∇ log p(y|x) holds here for x₀ and v too.
    """

    def __init__(self, model: Model, classifier: Model, diffusion: GaussianDiffusion, scale: float) -> None:
        self.model, self.classifier, self.diffusion, self.scale = model, classifier, diffusion, scale

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, **condition: Tensor) -> Tensor:
        """(B, C, …), (B,), labels (B,) → guided output, a variance head's part of it unchanged.

        Raises:
            ValueError: not one timestep and one label for each image.
        """
        output, n = self.model(x, t, y=y, **condition), x.shape[1]
        moved = output[:, :n] + self._factor(t, x) * self.scale * self.gradient(x, t, y)
        return torch.cat([moved, output[:, n:]], dim=1)

    def gradient(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """∇ log p(y|x), of the shape of `x`; raises ValueError where there is not one label for each image."""
        check_each(y, x, "labels")
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = self.classifier(x, t).log_softmax(dim=1).gather(1, y[:, None]).sum()
            (gradient,) = torch.autograd.grad(log_p, x)
        return gradient

    def _factor(self, t: Tensor, x: Tensor) -> Tensor:
        """What a step of 1 in the score changes in the output, (B, 1, …, 1): −b in ε, b²/a in x₀, −b/a in v."""
        sigma = self.diffusion.sigmas_of(t, x)
        b = sigma / (1 + sigma**2).sqrt()
        return {"eps": -b, "x_start": b * sigma, "v": -sigma}[self.diffusion.predicts]  # (12.12)


def _check_null(condition: Mapping[str, Tensor], null: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless there is a null condition of each name that can be broadcast to the condition."""
    if condition.keys() != null.keys():
        raise ValueError(f"conditions {sorted(condition)}, but null values are given for {sorted(null)}")
    for name, value in condition.items():
        check_fits(null[name], value, f"null condition {name!r}")
