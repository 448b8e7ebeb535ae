"""The Diffusion Transformer, with each of the paper's four ways to bring the condition in.

Letters: `B` batch, `C` channels of the image, `T` tokens, `D` width, `p` side of a patch.
Source: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", section 3.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.layers.attention import CrossAttention, SelfAttention
from ditbook.layers.embeddings import LabelEmbedding, TimestepEmbedding, sincos_2d
from ditbook.layers.mlp import MLP
from ditbook.layers.modulation import modulate
from ditbook.layers.patches import patchify, unpatchify

EPS = 1e-6  # of every LayerNorm


@dataclass(frozen=True)
class DiTConfig:
    """The design of a DiT. The defaults are DiT-XL/2 for ImageNet latents of 256×256 images.

    Raises:
        ValueError: sizes that do not fit together.
    """

    size: int = 32  # side of the square input, in pixels (or latents)
    channels: int = 4  # C
    patch: int = 2  # p
    width: int = 1152  # D
    depth: int = 28  # blocks
    heads: int = 16
    num_classes: int = 1000
    label_dropout: float = 0.1  # share of labels replaced by the null class in training
    learn_sigma: bool = True  # a second head of C channels interpolates the variance
    block: str = "adaLN-Zero"  # one of `BLOCKS`

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ValueError(f"no block {self.block!r}; there are {', '.join(BLOCKS)}")
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not divisible by patch {self.patch}")
        if self.width % 4 or self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by 4 and by the {self.heads} heads")

    @property
    def tokens(self) -> int:
        """T = (size / patch)²."""
        return (self.size // self.patch) ** 2

    @property
    def out_channels(self) -> int:
        """C, or 2·C with the variance head."""
        return 2 * self.channels if self.learn_sigma else self.channels


BLOCKS = ("in-context", "cross-attention", "adaLN", "adaLN-Zero")  # as the paper orders them
# name: depth, width, heads; parameters of the /2 model with 1,000 classes (without the position table)
SIZES = {
    "S": (12, 384, 6),  # 33 M
    "B": (12, 768, 12),  # 130 M
    "L": (24, 1024, 16),  # 458 M
    "XL": (28, 1152, 16),  # 675 M
}
PATCHES = (2, 4, 8)
MODELS = tuple(f"DiT-{size}/{patch}" for size in SIZES for patch in reversed(PATCHES))


def named(name: str, **changes: object) -> DiTConfig:
    """The configuration of one of the paper's 12 models, with fields changed at will.

    >>> named("DiT-S/4", size=64).tokens
    256

    Raises:
        ValueError: no such model.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; the paper's are {', '.join(MODELS)}")
    size, patch = name.removeprefix("DiT-").split("/")
    depth, width, heads = SIZES[size]
    return replace(DiTConfig(patch=int(patch), depth=depth, width=width, heads=heads), **changes)  # type: ignore[arg-type]


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm without parameters: the condition brings scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


class InContextBlock(nn.Module):
    """An ordinary Transformer block: the condition comes as two more tokens, which attention reads like any other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPS) for _ in range(2))
        self.attn = SelfAttention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens with the condition among them (B, T + 2, D) → the same; `c` is not looked at."""
        x = x + self.attn(self.norms[0](x))  # (16.16)
        return x + self.mlp(self.norms[1](x))


class CrossAttentionBlock(nn.Module):
    """A Transformer block with a third sublayer that looks at the two vectors of the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPS) for _ in range(3))
        self.attn = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition (B, 2, D) → (B, T, D)."""
        x = x + self.attn(self.norms[0](x))
        x = x + self.cross(self.norms[1](x), self.cross.remember(c))  # (16.17)
        return x + self.mlp(self.norms[2](x))


class AdaLNBlock(nn.Module):
    """A Transformer block whose norms are set by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.mlp = MLP(width)
        self.modulation = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition after SiLU (B, D) → (B, T, D)."""
        shift_1, scale_1, shift_2, scale_2 = self.modulation(c).chunk(4, dim=-1)
        x = x + self.attn(modulate(layer_norm(x), shift_1, scale_1))  # (16.18)
        return x + self.mlp(modulate(layer_norm(x), shift_2, scale_2))


class AdaLNZeroBlock(nn.Module):
    """A Transformer block whose norms and residual gates are set by the condition.

    At the start every gate is zero, and the block is the identity.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.mlp = MLP(width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition after SiLU (B, D) → (B, T, D)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c).chunk(6, dim=-1)  # (16.7)
        x = torch.addcmul(x, gate_1[:, None], self.attn(modulate(layer_norm(x), shift_1, scale_1)))  # (16.8)
        return torch.addcmul(x, gate_2[:, None], self.mlp(modulate(layer_norm(x), shift_2, scale_2)))  # (16.9)


class PlainFinalLayer(nn.Module):
    """Norm and linear map, for the blocks whose tokens already know the condition."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.linear = nn.Linear(width, values)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, T, D) → (B, T, p·p·out_channels); `c` is not looked at."""
        return self.linear(self.norm(x))


class FinalLayer(nn.Module):
    """Modulated norm, then one linear map from each token to the pixels of its patch."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, values)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, T, D), (B, D) → (B, T, p·p·out_channels)."""
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(layer_norm(x), shift, scale))  # (16.10)


BLOCK_TYPES: dict[str, type[nn.Module]] = dict(
    zip(BLOCKS, (InContextBlock, CrossAttentionBlock, AdaLNBlock, AdaLNZeroBlock), strict=True)
)


class DiT(nn.Module):
    """Noisy image, timestep, class → predicted noise (and variance logits).

    The forward pass is deterministic: labels are dropped by `label_embed.drop`, which the training loss calls.

    Args:
        config: the design.
    """

    pos_embed: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = nn.Linear(config.patch**2 * config.channels, width)
        self.register_buffer("pos_embed", sincos_2d(width, config.size // config.patch).float(), persistent=False)
        self.time_embed = TimestepEmbedding(width)
        self.label_embed = LabelEmbedding(config.num_classes, width, config.label_dropout)
        block = BLOCK_TYPES[config.block]
        self.blocks = nn.ModuleList(block(width, config.heads) for _ in range(config.depth))
        final = FinalLayer if config.block.startswith("adaLN") else PlainFinalLayer
        self.final = final(width, config.patch**2 * config.out_channels)
        self.initialise()

    def initialise(self) -> None:
        """Xavier for the linear maps, small normals for the embeddings, zeros where adaLN-Zero wants them.

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

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Predict.

        Args:
            x: noisy images, (B, C, size, size).
            t: timesteps of the training process, (B,).
            y: classes, (B,); `num_classes` is the null class.

        Returns:
            (B, C, size, size), or (B, 2·C, size, size) with the variance head: noise first, then logits in [−1, 1].

        Raises:
            ValueError: wrong channels or size, or a class out of range.
        """
        expected = (self.config.channels, self.config.size, self.config.size)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"input of shape {tuple(x.shape)}; this DiT takes (batch, {', '.join(map(str, expected))})"
            )
        tokens = self.patch_embed(patchify(x, self.config.patch)) + self.pos_embed  # (B, T, D)
        time, label = self.time_embed(t), self.label_embed(y)  # (B, D) each
        adaptive = self.config.block.startswith("adaLN")
        c = F.silu(time + label) if adaptive else torch.stack([time, label], dim=1)  # (B, D) or (B, 2, D)
        if self.config.block == "in-context":
            tokens = torch.cat([tokens, c], dim=1)
        for block in self.blocks:
            tokens = block(tokens, c)
        tokens = self.final(tokens[:, : self.config.tokens], c)
        return unpatchify(tokens, self.config.patch, self.config.out_channels)
