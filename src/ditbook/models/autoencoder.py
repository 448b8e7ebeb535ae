"""The convolutional autoencoder of latent diffusion: pictures to small latents with a little noise, and back.

Letters: `B` batch, `C H W` image, `Z` channels of a latent, `h w` its height and width.
Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.attention import SelfAttention

EPS = 1e-6  # of every norm
RANGE = (-30.0, 20.0)  # of the logarithm of a latent's variance


@dataclass(frozen=True)
class AutoencoderConfig:
    """The design. The defaults are the autoencoder of Stable Diffusion, whose latents DiT was trained on.

    Raises:
        ValueError: a width that the groups do not divide, or no level.
    """

    channels: int = 3  # C
    latent_channels: int = 4  # Z
    widths: tuple[int, ...] = (128, 256, 512, 512)  # one per level; between two levels the sides are halved
    blocks: int = 2  # residual blocks of a level
    groups: int = 32  # of every norm
    scale: float = 0.18215  # makes latents of standard deviation one, for diffusion

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths or any(width % self.groups for width in self.widths):
            raise ValueError(f"widths {self.widths} must all be divisible by the {self.groups} groups")

    @property
    def factor(self) -> int:
        """How many pixels of a side become one: 2 to the number of halvings."""
        return 2 ** (len(self.widths) - 1)


class ResBlock(nn.Module):
    """x + two convolutions, each after a norm and a SiLU; where the width changes, x passes a 1×1 convolution."""

    def __init__(self, width: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, width, EPS), nn.Conv2d(width, out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out, EPS), nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → (B, out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class PixelAttention(nn.Module):
    """x + attention of every pixel to every other, one head: (B, D, h, w) → the same."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.GroupNorm(groups, width, EPS), SelfAttention(width, heads=1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        tokens = rearrange(self.norm(x), "b d h w -> b (h w) d")
        return x + rearrange(self.mix(tokens), "b (h w) d -> b d h w", h=x.shape[2])


class Middle(nn.Module):
    """Block, attention, block, at the smallest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.first, self.last = (ResBlock(width, width, groups) for _ in range(2))
        self.attention = PixelAttention(width, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → the same."""
        return self.last(self.attention(self.first(x)))


class Halve(nn.Conv2d):
    """A convolution of stride 2 that pads to the right and below only, as the original does."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h/2, w/2)."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Double(nn.Conv2d):
    """Each pixel four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, 2h, 2w)."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, and the step to the next one if there is any."""

    def __init__(self, width: int, out: int, blocks: int, groups: int, resize: type[nn.Module] | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResBlock(width if k == 0 else out, out, groups) for k in range(blocks)))
        self.resize = nn.Identity() if resize is None else resize(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → (B, out, …)."""
        return self.resize(self.blocks(x))


class Encoder(nn.Module):
    """Pictures (B, C, H, W) → two numbers for each number of the latent, (B, 2·Z, h, w)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, last = config.widths, config.widths[-1]
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.levels = nn.Sequential(
            *(
                Level(before, width, config.blocks, config.groups, Halve if k + 1 < len(widths) else None)
                for k, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
            )
        )
        self.middle = Middle(last, config.groups)
        self.norm_out = nn.GroupNorm(config.groups, last, EPS)
        self.conv_out = nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shrink."""
        return self.conv_out(F.silu(self.norm_out(self.middle(self.levels(self.conv_in(x))))))


class Decoder(nn.Module):
    """Latents (B, Z, h, w) → pictures (B, C, H, W). Each level has one block more than in the encoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], config.groups)
        self.levels = nn.Sequential(
            *(
                Level(before, width, config.blocks + 1, config.groups, Double if k + 1 < len(widths) else None)
                for k, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
            )
        )
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Paint."""
        return self.conv_out(F.silu(self.norm_out(self.levels(self.middle(self.conv_in(z))))))


class Autoencoder(nn.Module):
    """Pictures ↔ latents.

    Args:
        config: the design.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        z = config.latent_channels
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.moments, self.enter = nn.Conv2d(2 * z, 2 * z, 1), nn.Conv2d(z, z, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents: (B, C, H, W) in [−1, 1] → two of (B, Z, H/f, W/f), unscaled.

        Raises:
            ValueError: wrong channels, or sides that are not divisible by the factor f.
        """
        f = self.config.factor
        if x.ndim != 4 or x.shape[1] != self.config.channels or x.shape[2] % f or x.shape[3] % f:
            raise ValueError(
                f"images of shape {tuple(x.shape)}; expected (batch, {self.config.channels}, H, W), both sides "
                f"divisible by {f}"
            )
        mean, log_var = self.moments(self.encoder(x)).chunk(2, dim=1)
        return mean, (0.5 * log_var.clamp(*RANGE)).exp()

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents (B, Z, h, w) → pictures (B, C, f·h, f·w), about in [−1, 1]."""
        return self.decoder(self.enter(z))


def sample_latent(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Draw latents: mean and standard deviation (B, Z, h, w) → (B, Z, h, w). The noise is drawn on the CPU."""
    return mean + std * torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)  # (15.2)


@torch.no_grad()
def latent_scale(mean: Tensor, std: Tensor) -> float:
    """One over the standard deviation of the latents of a data set: (N, Z, h, w) twice → what makes it one.

    Source: Rombach et al. 2022, appendix G: the latents of the first batch are rescaled to unit variance.
    """
    variance = mean.double().var(correction=0) + std.double().square().mean()  # within and between pictures
    return variance.rsqrt().item()  # (15.5)
