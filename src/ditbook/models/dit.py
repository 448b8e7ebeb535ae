"""The Diffusion Transformer, with each of the paper's four ways to bring the condition in.

Letters: `B` batch, `C` channels of the image, `T` tokens, `D` width, `p` side of a patch, `V` numbers a token gives.
Source: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", section 3.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.layers.adaln import AdaLNBlock, AdaLNZeroBlock, FinalLayer
from ditbook.layers.attention import CrossAttention, SelfAttention
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import (
    check_choice,
    check_multiple,
    check_per_sample,
    check_positive,
    check_range,
    check_types,
)
from ditbook.layers.complexity import Complexity
from ditbook.layers.embeddings import FREQUENCY_WIDTH, LabelEmbedding, TimestepEmbedding, sincos_2d
from ditbook.layers.mlp import MLP
from ditbook.layers.modulation import EPS
from ditbook.layers.patches import PatchEmbed, unpatchify


@dataclass(frozen=True, kw_only=True)
class Size:
    """Depth, width and heads of a named model."""

    depth: int
    width: int
    heads: int


SIZES = {  # the paper's, with the parameters of the /2 model, and small ones for the digits of chapter 18
    "DiT-S": Size(depth=12, width=384, heads=6),  # 33 M
    "DiT-B": Size(depth=12, width=768, heads=12),  # 130 M
    "DiT-L": Size(depth=24, width=1024, heads=16),  # 458 M
    "DiT-XL": Size(depth=28, width=1152, heads=16),  # 675 M
    "tiny-S": Size(depth=2, width=32, heads=2),  # 50 k for 10 classes of one channel
    "tiny-M": Size(depth=3, width=64, heads=4),  # 254 k
    "tiny-L": Size(depth=4, width=96, heads=4),  # 724 k
    "tiny-XL": Size(depth=6, width=128, heads=4),  # 1.9 M
}
MODELS = tuple(f"{size}/{patch}" for size in SIZES if size.startswith("DiT") for patch in (8, 4, 2))  # the paper's


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """A DiT. The defaults are DiT-XL/2 for ImageNet latents of 256×256 images.

    Raises:
        ValueError: no such block, a size that is not positive, sizes that do not divide one another, a label dropout
            outside 0 to 1.
    """

    size: int = 32  # side of the square input, in pixels (or latents)
    channels: int = 4  # C
    patch: int = 2  # p
    width: int = 1152  # D
    depth: int = 28  # blocks
    heads: int = 16
    num_classes: int = 1000
    label_dropout: float = 0.1  # fraction of labels replaced by the null class in training
    learn_sigma: bool = True  # a second head of C channels interpolates the variance
    block: str = "adaLN-Zero"  # one of `BLOCKS`

    def __post_init__(self) -> None:
        check_types(self)
        check_choice(self, "block", BLOCKS)
        check_positive(self, "size", "channels", "patch", "width", "depth", "heads", "num_classes")
        check_multiple("size", self.size, "patch", self.patch)
        check_multiple("width", self.width, "heads", self.heads)
        check_multiple("width", self.width, "sines and cosines of two axes:", 4)
        check_range(self, "label_dropout", high=1)

    @classmethod
    def from_name(cls, name: str, **changes: Any) -> "DiTConfig":
        """The config of a named model, SIZE/PATCH, with fields changed at will.

        >>> DiTConfig.from_name("DiT-S/4", size=64).tokens
        256

        Raises:
            ValueError: no such model, or what the config refuses.
        """
        size, _, patch = name.partition("/")
        if size not in SIZES or not patch.isdecimal():
            raise ValueError(f"no model {name!r}; a name is SIZE/PATCH, as DiT-S/4, and sizes are {', '.join(SIZES)}")
        return cls(**{**vars(SIZES[size]), "patch": int(patch), **changes})

    @property
    def tokens(self) -> int:
        """T = (size / patch)²."""
        return (self.size // self.patch) ** 2  # (15.8)

    @property
    def out_channels(self) -> int:
        """C, or 2·C with the variance head."""
        return 2 * self.channels if self.learn_sigma else self.channels

    def complexity(self) -> Complexity:
        """Counts by formula, derived in chapter 16: those of Table 4 and figure 5 of Peebles & Xie 2023."""
        T, D, L, block = self.tokens, self.width, self.depth, BLOCKS[self.block]
        patch, out = self.patch**2 * self.channels, self.patch**2 * self.out_channels
        each, embedders = block.complexity(T, D), FREQUENCY_WIDTH * D + D**2
        final = 2 * D**2 if issubclass(block.final, FinalLayer) else 0  # its modulation
        macs = T * patch * D + embedders + L * each.macs + final + T * D * out  # (16.14)
        inputs = (patch + 1) * D + embedders + 2 * D + (self.num_classes + 1) * D
        trainable = inputs + L * each.trainable + final + 2 * D + out * (D + 1)  # (16.15)
        return Complexity(macs=macs, norms=L * each.norms + T * D, trainable=trainable, fixed=T * D)


class PlainFinalLayer(nn.Module):
    """Norm and linear map, for the blocks whose tokens have already received the condition."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.linear = nn.Linear(width, values)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, T, D) → (B, T, V); `c` is unused."""
        return self.linear(self.norm(x))


class InContextBlock(nn.Module):
    """A pre-norm Transformer block. The condition comes as two tokens, which attention treats like any other."""

    condition, final = "tokens", PlainFinalLayer

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPS) for _ in range(2))
        self.attn = SelfAttention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens with the condition among them (B, T + 2, D) → the same; `c` is unused."""
        x = x + self.attn(self.norms[0](x))  # (16.16)
        return x + self.mlp(self.norms[1](x))

    @staticmethod
    def complexity(T: int, D: int) -> Complexity:
        """Counts of a Transformer block with two tokens more."""
        return TransformerBlock.complexity(T + 2, D)


class CrossAttentionBlock(nn.Module):
    """A pre-norm Transformer block with a third sublayer that attends to the two vectors of the condition."""

    condition, final = "memory", PlainFinalLayer

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPS) for _ in range(3))
        self.attn = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition (B, 2, D) → (B, T, D)."""
        x = x + self.attn(self.norms[0](x))
        x = x + self.cross(self.norms[1](x), self.cross.project_kv(c))  # (16.17)
        return x + self.mlp(self.norms[2](x))

    @staticmethod
    def complexity(T: int, D: int) -> Complexity:
        """Counts of a Transformer block, and of cross-attention to two vectors with its norm."""
        cross = Complexity(macs=2 * T * D**2 + 4 * D**2 + 4 * T * D, norms=T * D, trainable=4 * D**2 + 6 * D)
        return TransformerBlock.complexity(T, D) + cross


# As the paper orders them. Each takes the condition as two more "tokens", as a "memory" of two vectors (B, 2, D), or as
# one "vector" after SiLU (B, D).
BLOCKS: dict[str, Any] = {
    "in-context": InContextBlock,
    "cross-attention": CrossAttentionBlock,
    "adaLN": AdaLNBlock,
    "adaLN-Zero": AdaLNZeroBlock,
}


class DiT(nn.Module):
    """Noisy image, timestep, class → predicted noise (and variance logits). The forward pass is deterministic."""

    pos_embed: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, block = config.width, BLOCKS[config.block]
        self.patch_embed = PatchEmbed(config.size, config.channels, config.patch, width)
        self.register_buffer("pos_embed", sincos_2d(width, config.size // config.patch).float(), persistent=False)
        self.time_embed = TimestepEmbedding(width)
        self.label_embed = LabelEmbedding(config.num_classes, width)
        self.blocks = nn.ModuleList(block(width, config.heads) for _ in range(config.depth))
        self.final = block.final(width, config.patch**2 * config.out_channels)
        self.initialize()

    def initialize(self) -> None:
        """Xavier for the linear maps, small normals for the embeddings; adaLN-Zero layers start at zero.

        Of the other blocks the paper gives no initial weights: there only the last map is zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in (*self.time_embed.mlp, self.label_embed.table):
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.final.linear.weight)
        for module in self.modules():
            if isinstance(module, AdaLNZeroBlock | FinalLayer):
                nn.init.zeros_(module.modulation.weight)

    def null_condition(self, y: Tensor) -> dict[str, Tensor]:
        """The condition without a class, for guidance: labels (B,) → the null class in the place of each."""
        return {"y": torch.full_like(y, self.label_embed.null)}

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Predict.

        Args:
            x: noisy images, (B, C, size, size).
            t: timesteps of the training process, (B,).
            y: classes, (B,); `num_classes` is the null class.

        Returns:
            (B, C, size, size), or (B, 2·C, size, size) with the variance head: noise first, then logits in [−1, 1].

        Raises:
            ValueError: wrong shapes, images of whole numbers, or a class out of range.
        """
        check_per_sample(t, len(x), "timesteps")
        check_per_sample(y, len(x), "labels")
        tokens = self.patch_embed(x) + self.pos_embed  # (B, T, D)  # (16.2)
        time, label = self.time_embed(t), self.label_embed(y)  # (B, D) each
        kind = BLOCKS[self.config.block].condition
        c = F.silu(time + label) if kind == "vector" else torch.stack([time, label], dim=1)  # (B, D) or (B, 2, D)
        if kind == "tokens":
            tokens = torch.cat([tokens, c], dim=1)  # (B, T + 2, D)
        for block in self.blocks:
            tokens = block(tokens, c)
        tokens = self.final(tokens[:, : self.config.tokens], c)  # (B, T, p·p·out_channels)
        return unpatchify(tokens, self.config.patch, self.config.out_channels)
