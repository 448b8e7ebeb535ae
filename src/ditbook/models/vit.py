"""The Vision Transformer: an image as a sequence of patches.

Letters: `B` batch, `C` channels, `p` side of a patch, `T` patches, `D` width, `L` layers.
Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbook.layers.attention import attention_map
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_positive, check_types
from ditbook.layers.complexity import Complexity
from ditbook.layers.patches import PatchEmbed

EPS = 1e-12  # of every LayerNorm


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A ViT. The defaults are ViT-B/16.

    Raises:
        ValueError: a size that is not positive, or sizes that do not divide one another.
    """

    size: int = 224  # side of the square image, in pixels
    channels: int = 3  # C
    patch: int = 16  # p
    width: int = 768  # D
    depth: int = 12  # L
    heads: int = 12
    num_classes: int = 1000

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "size", "channels", "patch", "width", "depth", "heads", "num_classes")
        check_multiple("size", self.size, "patch", self.patch)
        check_multiple("width", self.width, "heads", self.heads)

    @property
    def tokens(self) -> int:
        """T + 1: the patches, and the class token before them."""
        return (self.size // self.patch) ** 2 + 1  # (7.1)

    def complexity(self) -> Complexity:
        """Counts for one image, by formula. Source: derived in chapter 7."""
        T, D, L, K = self.tokens - 1, self.width, self.depth, self.num_classes
        patch, block = self.patch**2 * self.channels, TransformerBlock.complexity(T + 1, D)
        return Complexity(
            macs=T * patch * D + L * block.macs + D * K,  # (7.5)
            norms=L * block.norms + (T + 1) * D,
            trainable=(patch + 1) * D + D + (T + 1) * D + L * block.trainable + 2 * D + (D + 1) * K,
        )


class ViT(nn.Module):
    """Image → logits of the classes."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEmbed(config.size, config.channels, config.patch, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, config.tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            TransformerBlock(width, config.heads, pre_norm=True, gelu="exact", eps=EPS) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, config.num_classes)

    def embed(self, image: Tensor) -> Tensor:
        """Patches, the class token before them, and positions: (B, C, size, size) → (B, T + 1, D).

        Raises:
            ValueError: images of another shape, or not of floating-point numbers.
        """
        patches = self.patch_embed(image)  # (B, T, D)
        return torch.cat([self.class_token.expand(len(image), -1, -1), patches], dim=1) + self.positions  # (7.2)

    def encode(self, image: Tensor) -> Tensor:
        """All tokens after the last norm, (B, T + 1, D); the first is the class token."""
        x = self.embed(image)
        for layer in self.layers:
            x = layer(x)  # (7.3)
        return self.norm(x)

    def forward(self, image: Tensor) -> Tensor:
        """Classify: (B, C, size, size) → logits (B, classes), read off the class token."""
        return self.head(self.encode(image)[:, 0])  # (7.4)

    @torch.no_grad()
    def attention_maps(self, image: Tensor) -> Tensor:
        """The attention weights of every layer and head, for figures: (B, L, H, T + 1, T + 1)."""
        x, maps = self.embed(image), []
        for layer in cast("Sequence[Any]", self.layers):
            maps.append(attention_map(layer.attention, layer.norms[0](x)))
            x = layer(x)
        return torch.stack(maps, dim=1)
