"""The loss of a variational autoencoder with a small weight on its divergence.

Letters: `B` batch, `C H W` image, `Z` channels of a latent, `h w` its height and width.
Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", appendix G.
"""

from typing import Any

import torch
from torch import Tensor

from ditbook import rng


def kl(mean: Tensor, std: Tensor) -> Tensor:
    """Divergence of each image's latent from N(0, I) in nats: mean and standard deviation (B, Z, h, w) → (B,)."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).flatten(1).sum(dim=1)  # (15.3)


def autoencoder_loss(model: Any, x: Tensor, generator: torch.Generator, kl_weight: float) -> Tensor:
    """Mean absolute error of decoded latents, plus their weighted divergence per number of the image.

    Args:
        model: has `encode`, images → mean and standard deviation of latents, and `decode`, latents → images.
        x: images, (B, C, H, W) in [−1, 1].
        generator: of the latents' noise.
        kl_weight: the paper's is 1e-6.

    Source: Rombach et al. 2022, appendix G, without the perceptual and the adversarial term.
    """
    mean, std = model.encode(x)
    decoded = model.decode(mean + std * rng.randn(mean.shape, generator, like=mean))
    return (decoded - x).abs().mean() + kl_weight * kl(mean, std).mean() / x[0].numel()  # (15.4)
