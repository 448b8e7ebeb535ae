"""The convolutional autoencoder of latent diffusion: images to small latents with a little noise, and back.

Letters: `B` batch, `C H W` image, `Z` channels of a latent, `h w` its height and width, `D` channels of a feature map.
Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook import rng
from ditbook.layers.checks import check_multiple, check_positive, check_range, check_types, check_widths
from ditbook.layers.conv import Downsample, ResidualBlock, SpatialAttention, Upsample

EPS = 1e-6  # of every norm
LOG_VARIANCE = (-30.0, 20.0)  # limits of the logarithm of a latent's variance
SLICE = 100  # images that `to_latents` and `from_latents` compute at once


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """An autoencoder. The defaults are that of Stable Diffusion, on whose latents DiT was trained.

    Raises:
        ValueError: no widths, a size that is not positive, a width that the groups do not divide, a scale that is not
            positive.
    """

    channels: int = 3  # C
    patch: int = 1  # side of the squares of pixels that become channels of one position, before the first level
    latent_channels: int = 4  # Z
    widths: tuple[int, ...] = (128, 256, 512, 512)  # one per level; between two levels the sides are halved
    blocks: int = 2  # residual blocks of a level
    groups: int = 32  # of every norm
    scale: float = 0.18215  # makes latents of standard deviation one, for diffusion

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "channels", "patch", "latent_channels", "blocks", "groups")
        check_widths(self, "widths")
        for width in self.widths:
            check_multiple("widths:", width, "groups", self.groups)
        check_range(self, "scale", above=True)

    @property
    def factor(self) -> int:
        """f, the side of an image over that of its latent: 2 to the number of halvings, times the side of a patch."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def compression(self) -> float:
        """Numbers of an image over numbers of its latent."""
        return self.channels * self.factor**2 / self.latent_channels  # (15.1)


class MidBlock(nn.Module):
    """Block, attention, block, at the smallest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.first, self.last = (ResidualBlock(width, width, groups, EPS) for _ in range(2))
        self.attention = SpatialAttention(width, 1, groups, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h, w)."""
        return self.last(self.attention(self.first(x)))


class Level(nn.Module):
    """Residual blocks of one resolution, and the change to the next one if there is any."""

    def __init__(
        self, width: int, out: int, blocks: int, groups: int, resize: Callable[[int], nn.Module] | None
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(width if k == 0 else out, out, groups, EPS) for k in range(blocks)))
        self.resize = nn.Identity() if resize is None else resize(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → (B, out, …)."""
        return self.resize(self.blocks(x))


def _levels(widths: tuple[int, ...], blocks: int, groups: int, resize: Callable[[int], nn.Module]) -> nn.Sequential:
    """A level for each width, resized after all but the last."""
    return nn.Sequential(
        *(
            Level(before, width, blocks, groups, resize if k + 1 < len(widths) else None)
            for k, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
    )


class Encoder(nn.Module):
    """Images (B, C, H, W) → two numbers for each number of the latent, (B, 2·Z, h, w)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, last, self.patch = config.widths, config.widths[-1], config.patch
        self.conv_in = nn.Conv2d(config.channels * config.patch**2, widths[0], 3, padding=1)
        self.levels = _levels(widths, config.blocks, config.groups, partial(Downsample, symmetric=False))
        self.middle = MidBlock(last, config.groups)
        self.norm_out = nn.GroupNorm(config.groups, last, EPS)
        self.conv_out = nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 2·Z, h, w)."""
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        return self.conv_out(F.silu(self.norm_out(self.middle(self.levels(h)))))


class Decoder(nn.Module):
    """Latents (B, Z, h, w) → images (B, C, H, W). Each level has one block more than in the encoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, self.patch = config.widths[::-1], config.patch
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = MidBlock(widths[0], config.groups)
        self.levels = _levels(widths, config.blocks + 1, config.groups, Upsample)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.channels * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) → (B, C, H, W)."""
        h = self.conv_out(F.silu(self.norm_out(self.levels(self.middle(self.conv_in(z))))))
        return F.pixel_shuffle(h, self.patch)


class Autoencoder(nn.Module):
    """Images ↔ latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        z = config.latent_channels
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * z, 2 * z, 1), nn.Conv2d(z, z, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents: (B, C, H, W) in [−1, 1] → two of (B, Z, H/f, W/f), unscaled.

        Raises:
            ValueError: images of whole numbers, wrong channels, or sides that are not divisible by the factor f.
        """
        rng.check_floating(x)
        f = self.config.factor
        if x.ndim != 4 or x.shape[1] != self.config.channels or x.shape[2] % f or x.shape[3] % f:
            raise ValueError(
                f"images of shape {tuple(x.shape)}; this model takes (batch, {self.config.channels}, H, W), both sides "
                f"divisible by {f}"
            )
        mean, log_var = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return mean, (0.5 * log_var.clamp(*LOG_VARIANCE)).exp()

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents (B, Z, h, w) → images (B, C, f·h, f·w), about in [−1, 1].

        Raises:
            ValueError: latents of another number of channels.
        """
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"latents of shape {tuple(z.shape)}; this model takes (batch, {self.config.latent_channels}, h, w)"
            )
        return self.decoder(self.post_quant_conv(z))

    def scaled_latents(self, mean: Tensor, std: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What diffusion is trained on: a sample of the latents times the scale, or their mean without a generator.

        Args:
            mean: as `encode` gives it, (B, Z, h, w).
            std: as `encode` gives it, (B, Z, h, w).
            generator: of the noise.
        """
        z = mean if generator is None else sample_latent(mean, std, generator)
        return self.config.scale * z  # s z in (15.6)

    def to_latents(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (N, C, H, W) in [−1, 1] → latents for diffusion (N, Z, H/f, W/f), of standard deviation about one.

        Args:
            x: any number of images.
            generator: of the latents' noise; without it, their means are taken.

        Raises:
            ValueError: as for `encode`.
        """
        mean, std = (torch.cat(parts) for parts in zip(*map(self.encode, x.split(SLICE)), strict=True))
        return self.scaled_latents(mean, std, generator)  # s z in (15.6)

    def from_latents(self, z: Tensor) -> Tensor:
        """Latents of diffusion, any number of them, (N, Z, h, w) → images (N, C, f·h, f·w), about in [−1, 1].

        Raises:
            ValueError: as for `decode`.
        """
        return torch.cat([self.decode(part / self.config.scale) for part in z.split(SLICE)])  # (15.7)


def sample_latent(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Sample latents: mean and standard deviation (B, Z, h, w) → (B, Z, h, w)."""
    return mean + std * rng.randn(mean.shape, generator, like=mean)  # (15.2)


@torch.no_grad()
def latent_scale(mean: Tensor, std: Tensor) -> float:
    """One over the standard deviation of the latents of a data set: (N, Z, h, w) twice → what makes it one.

    Source: Rombach et al. 2022, appendix G: the latents of the first batch are rescaled to unit variance.
    """
    variance = mean.double().var(correction=0) + std.double().square().mean()  # within and between images
    return variance.rsqrt().item()  # (15.5)
