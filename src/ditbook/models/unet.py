"""The U-Net of DDPM, small: residual blocks, attention on the coarsest grid, skips from the way down to the way up.

Letters: `B` batch, `C` channels, `H W` height and width of the current level, `D` width of the time embedding.
Source: Ho et al. 2020, section 4 and appendix B.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.attention import SelfAttention
from ditbook.layers.embeddings import TimestepEmbedding

GROUPS = 8  # of every GroupNorm


@dataclass(frozen=True)
class UNetConfig:
    """The design of a U-Net. The defaults suit the 8×8 digits.

    Raises:
        ValueError: sizes that do not fit together.
    """

    size: int = 8  # side of the square input
    channels: int = 1
    width: int = 32  # channels of the finest level, a multiple of 8
    multipliers: tuple[int, ...] = (1, 2)  # channels of each level, in units of `width`; each level halves the side
    blocks: int = 1  # residual blocks on each level on the way down
    heads: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        halvings = 2 ** (len(self.multipliers) - 1)
        if self.size % halvings:
            raise ValueError(f"size {self.size} must be divisible by {halvings} for {len(self.multipliers)} levels")
        if self.width % GROUPS:
            raise ValueError(f"width {self.width} must be divisible by {GROUPS}, the groups of GroupNorm")


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; the time embedding is added between them."""

    def __init__(self, channels: int, out_channels: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, C, H, W), time after SiLU (B, D) → (B, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(c)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class SpatialAttention(nn.Module):
    """Self-attention among all positions of a feature map, around a shortcut."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.attn = SelfAttention(channels, heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        tokens = self.attn(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[2])


class Level(nn.Module):
    """The residual blocks of one resolution, and the change to the next."""

    def __init__(self, inputs: list[int], channels: int, time_width: int, change: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(n, channels, time_width) for n in inputs)
        self.change = change


class UNet(nn.Module):
    """Noisy image, timestep → predicted noise.

    Args:
        config: the design.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        time_width = 4 * config.width
        widths = [config.width * m for m in config.multipliers]
        self.time_embed = TimestepEmbedding(time_width)
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        skips = [widths[0]]  # channels of every feature map that is kept for the way up

        self.down = nn.ModuleList()
        now = widths[0]
        for width in widths:
            inputs = [now] + [width] * (config.blocks - 1)
            last = len(self.down) == len(widths) - 1
            change = nn.Identity() if last else nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.down.append(Level(inputs, width, time_width, change))
            skips += [width] * (config.blocks + (not last))
            now = width

        self.middle_1 = ResidualBlock(now, now, time_width)
        self.middle_attn = SpatialAttention(now, config.heads)
        self.middle_2 = ResidualBlock(now, now, time_width)

        self.up = nn.ModuleList()
        for width in reversed(widths):
            inputs = [now + skips.pop()] + [width + skips.pop() for _ in range(config.blocks)]
            last = len(self.up) == len(widths) - 1
            change = nn.Identity() if last else nn.Conv2d(width, width, 3, padding=1)
            self.up.append(Level(inputs, width, time_width, change))
            now = width

        self.norm_out = nn.GroupNorm(GROUPS, now)
        self.conv_out = nn.Conv2d(now, config.channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in `x` (B, C, size, size) at timesteps `t` (B,).

        Raises:
            ValueError: wrong channels or size.
        """
        expected = (self.config.channels, self.config.size, self.config.size)
        if tuple(x.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise ValueError(f"input of shape {tuple(x.shape)}; this U-Net takes (batch, {shape})")
        c = F.silu(self.time_embed(t))  # (B, D)
        h = self.conv_in(x)
        kept = [h]
        for i, level in enumerate(cast("list[Level]", self.down)):
            for block in level.blocks:
                h = block(h, c)
                kept.append(h)
            if i < len(self.down) - 1:
                h = level.change(h)
                kept.append(h)
        h = self.middle_2(self.middle_attn(self.middle_1(h, c)), c)
        for i, level in enumerate(cast("list[Level]", self.up)):
            for block in level.blocks:
                h = block(torch.cat([h, kept.pop()], dim=1), c)
            if i < len(self.up) - 1:
                h = level.change(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))
