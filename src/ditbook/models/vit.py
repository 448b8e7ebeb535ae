"""The Vision Transformer: an image as a sentence of patches.

Letters: `B` batch, `C` channels, `p` side of a patch, `T` patches, `D` width.
Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ditbook.layers.attention import attention_map
from ditbook.layers.patches import patchify
from ditbook.models.transformer import EncoderLayer


@dataclass(frozen=True)
class ViTConfig:
    """The design of a ViT. The defaults are ViT-B/16.

    Raises:
        ValueError: the size is not divisible by the patch.
    """

    size: int = 224  # side of the square image, in pixels
    channels: int = 3  # C
    patch: int = 16  # p
    width: int = 768  # D
    depth: int = 12
    heads: int = 12
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not divisible by patch {self.patch}")

    @property
    def tokens(self) -> int:
        """T + 1: the patches, and the class token before them."""
        return (self.size // self.patch) ** 2 + 1


class ViT(nn.Module):
    """Image → scores of the classes.

    Args:
        config: the design.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = nn.Linear(config.patch**2 * config.channels, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, config.tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, pre_norm=True, gelu="exact", eps=1e-12) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, 1e-12)
        self.head = nn.Linear(width, config.num_classes)

    def embed(self, image: Tensor) -> Tensor:
        """Patches, the class token before them, and positions: (B, C, size, size) → (B, T + 1, D).

        Raises:
            ValueError: wrong channels or size.
        """
        expected = (self.config.channels, self.config.size, self.config.size)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(
                f"images of shape {tuple(image.shape)}; this ViT takes (batch, {', '.join(map(str, expected))})"
            )
        patches = self.patch_embed(patchify(image, self.config.patch))  # (B, T, D)
        return torch.cat([self.class_token.expand(len(image), -1, -1), patches], dim=1) + self.positions

    def encode(self, image: Tensor) -> Tensor:
        """All tokens after the last norm, (B, T + 1, D); the first is the class token."""
        x = self.embed(image)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def forward(self, image: Tensor) -> Tensor:
        """Classify: (B, C, size, size) → logits (B, classes), read off the class token."""
        return self.head(self.encode(image)[:, 0])

    @torch.no_grad()
    def attention_maps(self, image: Tensor) -> Tensor:
        """The weights of every layer and head, for figures: (B, layers, H, T + 1, T + 1)."""
        x, maps = self.embed(image), []
        for layer in self.layers:
            maps.append(attention_map(layer.attention, layer.norms[0](x)))  # type: ignore[arg-type, index, operator]
            x = layer(x)
        return torch.stack(maps, dim=1)
