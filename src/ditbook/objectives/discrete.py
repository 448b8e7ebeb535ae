"""The losses of a discrete autoencoder, relaxed or quantized, and the annealing of what they depend on.

Letters: `B` batch, `C H W` image, `K` codes, `h w` height and width of the grid of tokens.
Source: Ramesh et al. 2021 (DALL·E), section 2.1 and appendix A; van den Oord et al. 2017.
"""

import math
from typing import Any

import torch
from torch import Tensor


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """Divergence of softmax(logits) from the uniform distribution in nats: (B, K, h, w) → (B, h, w), 0 to ln K."""
    log_q = logits.log_softmax(dim=1)
    return math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(dim=1)  # (9.7)


def relaxed_loss(model: Any, x: Tensor, temperature: float, kl_weight: float, generator: torch.Generator) -> Tensor:
    """Minus the relaxed evidence lower bound of images, in nats per number of an image.

    Args:
        model: has `encode`, images → logits; `relax`, logits → weights of the codes; and `nats`, images and weights →
            minus the logarithm of the likelihood of each number.
        x: (B, C, H, W) in [−1, 1].
        temperature: τ, of the Gumbel–softmax.
        kl_weight: β; a bound at 1, the paper's is 6.6.
        generator: of the Gumbel noise.
    """
    logits = model.encode(x)
    nats = model.nats(x, model.relax(logits, temperature, generator)).mean()
    tokens = logits[:, 0].numel() / x.numel()  # per number of an image
    return nats + kl_weight * tokens * divergence_from_uniform(logits).mean()  # (9.8)


def quantized_loss(model: Any, x: Tensor, commitment: float) -> Tensor:
    """The loss of vector quantization, the likelihood in nats per number of an image.

    Args:
        model: has `vectors`, images → vectors; `quantizer`; and `nats`, images and codes → minus the logarithm of the
            likelihood of each number.
        x: (B, C, H, W) in [−1, 1].
        commitment: β of the paper, which takes 0.25: weight of the vectors' distance to their codes.

    Source: van den Oord et al. 2017, equation 3.
    """
    codes, (to_codebook, to_encoder) = model.quantizer(model.vectors(x))
    return model.nats(x, codes).mean() + to_codebook + commitment * to_encoder  # (9.10)


def cosine_anneal(step: int, steps: int, start: float, end: float) -> float:
    """A number that falls or grows from `start` to `end` along half a cosine during `steps` steps, and then stays.

    Source: Ramesh et al. 2021, appendix A.2.
    """
    passed = min(step / steps, 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * passed)) / 2
