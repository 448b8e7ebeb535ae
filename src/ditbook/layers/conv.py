"""Parts of convolutional networks: residual block, attention over a feature map, and the change of resolution.

Letters: `B` batch, `D` channels, `h w` height and width of a feature map, `C` width of a time embedding.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.attention import SelfAttention


class ResidualBlock(nn.Module):
    """x + two 3×3 convolutions, each after a norm and a SiLU; where the width changes, x passes a 1×1 convolution.

    Args:
        width: channels of the input, a multiple of `groups`.
        out: channels of the output, a multiple of `groups`.
        groups: of every GroupNorm.
        eps: of every GroupNorm.
        time_width: C; with it, a linear map of the time embedding is added between the convolutions.

    Source: He et al. 2016 (identity mappings); Ho et al. 2020, appendix B.
    """

    def __init__(self, width: int, out: int, groups: int, eps: float, time_width: int | None = None) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, width, eps), nn.Conv2d(width, out, 3, padding=1)
        self.time = None if time_width is None else nn.Linear(time_width, out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out, eps), nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(B, width, h, w), and the time embedding after SiLU (B, C) → (B, out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            h = h + self.time(c)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class SpatialAttention(nn.Module):
    """x + self-attention among all positions of a feature map.

    Args:
        width: D, a multiple of `heads` and of `groups`.
        heads: of the attention.
        groups: of the GroupNorm.
        eps: of the GroupNorm.
    """

    def __init__(self, width: int, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm, self.attn = nn.GroupNorm(groups, width, eps), SelfAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h, w)."""
        tokens = self.attn(rearrange(self.norm(x), "b d h w -> b (h w) d"))
        return x + rearrange(tokens, "b (h w) d -> b d h w", h=x.shape[2])


class Downsample(nn.Conv2d):
    """A 3×3 convolution of stride 2.

    Args:
        width: D.
        symmetric: pad each side by one pixel; without it, right and below only, as Stable Diffusion's autoencoder does.
    """

    def __init__(self, width: int, symmetric: bool = True) -> None:
        super().__init__(width, width, 3, stride=2, padding=1 if symmetric else 0)
        self.symmetric = symmetric

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h/2, w/2)."""
        return super().forward(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Conv2d):
    """Each pixel four times, then a 3×3 convolution.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, 2h, 2w)."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
