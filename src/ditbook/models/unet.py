"""The U-Net of DDPM, small: residual blocks, attention on the coarsest grid, skips from the way down to the way up.

`Upsampler` is the same network with a smaller image as its condition.
Letters: `B` batch, `C` channels, `S` side of the image, `L` side of the smaller one, `D` width of the time embedding.
Source: Ho et al. 2020, section 4 and appendix B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.layers.checks import (
    check_images,
    check_multiple,
    check_per_sample,
    check_positive,
    check_types,
    check_widths,
)
from ditbook.layers.conv import Downsample, ResidualBlock, SpatialAttention, Upsample
from ditbook.layers.embeddings import TimestepEmbedding

GROUPS, EPS = 8, 1e-5  # of every GroupNorm


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A U-Net. The defaults suit the 8×8 digits.

    Raises:
        ValueError: no multipliers, a size that is not positive, or sizes that do not divide one another.
    """

    size: int = 8  # side of the square input
    channels: int = 1
    patch: int = 1  # side of the squares of pixels that become channels of one position, before the finest level
    width: int = 32  # channels of the finest level, a multiple of 8
    multipliers: tuple[int, ...] = (1, 2)  # channels of each level, in units of `width`; each level halves the side
    blocks: int = 1  # residual blocks on each level on the way down
    heads: int = 4

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "size", "channels", "patch", "width", "blocks", "heads")
        check_widths(self, "multipliers")
        check_multiple("size", self.size, "patch", self.patch)
        halvings = 2 ** (len(self.multipliers) - 1)
        check_multiple("size", self.size, "the halvings of the levels:", self.patch * halvings)
        check_multiple("width", self.width, "the groups of GroupNorm:", GROUPS)
        check_multiple("width of the coarsest level", self.width * self.multipliers[-1], "heads", self.heads)


class Level(nn.Module):
    """The residual blocks of one resolution, and the change to the next."""

    def __init__(self, inputs: list[int], width: int, time_width: int, change: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(n, width, GROUPS, EPS, time_width) for n in inputs)
        self.change = change


class UNet(nn.Module):
    """Noisy image, timestep → predicted noise.

    Args:
        config: its hyperparameters.
        images: how many images of this size it is given, the noisy one among them.
    """

    def __init__(self, config: UNetConfig, images: int = 1) -> None:
        super().__init__()
        self.config = config
        pixels = config.channels * config.patch**2  # channels of the finest level
        time_width = 4 * config.width
        widths = [config.width * m for m in config.multipliers]
        self.time_embed = TimestepEmbedding(time_width)
        self.conv_in = nn.Conv2d(images * pixels, widths[0], 3, padding=1)
        skips = [widths[0]]  # channels of every feature map that is kept for the way up

        self.down = nn.ModuleList()
        now = widths[0]
        for width in widths:
            inputs = [now] + [width] * (config.blocks - 1)
            last = len(self.down) == len(widths) - 1
            self.down.append(Level(inputs, width, time_width, nn.Identity() if last else Downsample(width)))
            skips += [width] * (config.blocks + (not last))
            now = width

        self.middle_1 = ResidualBlock(now, now, GROUPS, EPS, time_width)
        self.middle_attn = SpatialAttention(now, config.heads, GROUPS, EPS)
        self.middle_2 = ResidualBlock(now, now, GROUPS, EPS, time_width)

        self.up = nn.ModuleList()
        for width in reversed(widths):
            inputs = [now + skips.pop()] + [width + skips.pop() for _ in range(config.blocks)]
            last = len(self.up) == len(widths) - 1
            self.up.append(Level(inputs, width, time_width, nn.Identity() if last else Upsample(width)))
            now = width

        self.norm_out = nn.GroupNorm(GROUPS, now, EPS)
        self.conv_out = nn.Conv2d(now, pixels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in `x` (B, C, S, S) at timesteps `t` (B,).

        Raises:
            ValueError: wrong shapes, or images of whole numbers.
        """
        check_images(x, self.config.channels, self.config.size)
        check_per_sample(t, len(x), "timesteps")
        return self._denoise(x, self.time_embed(t))

    def _denoise(self, x: Tensor, c: Tensor) -> Tensor:
        """All images (B, images·C, S, S), the sum of the embeddings (B, D) → prediction (B, C, S, S)."""
        down, up = (cast("Sequence[Any]", levels) for levels in (self.down, self.up))
        c = F.silu(c)
        h = self.conv_in(F.pixel_unshuffle(x, self.config.patch))
        kept = [h]
        for level in down:
            for block in level.blocks:
                h = block(h, c)
                kept.append(h)
            if level is not down[-1]:
                h = level.change(h)
                kept.append(h)
        h = self.middle_2(self.middle_attn(self.middle_1(h, c)), c)
        for level in up:
            for block in level.blocks:
                h = block(torch.cat([h, kept.pop()], dim=1), c)
            h = level.change(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.config.patch)


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig(UNetConfig):
    """A U-Net whose condition is a smaller image.

    Raises:
        ValueError: as for `UNetConfig`, or the sides do not divide one another.
    """

    low: int = 4  # side of the smaller image

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "low")
        check_multiple("size", self.size, "low", self.low)


class Upsampler(UNet):
    """Noisy image, timestep, a smaller image with noise on it, the level of that noise → the clean image.

    The smaller image is enlarged, without new detail, and enters beside the noisy one; the network adds what it lacks.

    Source: Ho et al. 2022, "Cascaded Diffusion Models", section 4.2; Saharia et al. 2022 ("SR3") for the concatenation.
    """

    config: UpsamplerConfig

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__(config, images=2)
        self.level_embed = TimestepEmbedding(4 * config.width)

    def forward(self, x: Tensor, t: Tensor, low: Tensor, level: Tensor) -> Tensor:  # type: ignore[override]
        """Predict x₀ from `x` (B, C, S, S) at `t` (B,), and `low` (B, C, L, L) with the noise of `level` (B,).

        Raises:
            ValueError: wrong shapes, or images of whole numbers.
        """
        check_images(x, self.config.channels, self.config.size)
        check_images(low, self.config.channels, self.config.low)
        if len(low) != len(x):
            raise ValueError(f"{len(low)} small images for {len(x)} noisy ones; one for each is needed")
        check_per_sample(t, len(x), "timesteps")
        check_per_sample(level, len(x), "levels")
        enlarged = F.interpolate(low, size=x.shape[2:], mode="bilinear")  # (B, C, S, S)
        c = self.time_embed(t) + self.level_embed(level)  # (B, D)
        return enlarged + self._denoise(torch.cat([x, enlarged], dim=1), c)
