"""A Diffusion Transformer that draws what a text says: by cross-attention to its words, or by joint attention.

Letters: `B` batch, `C` channels of the image (or latent), `p` side of a patch, `T` tokens of the image, `S` tokens of
the text, `D` width, `E` width of the text encoder, `H` heads.
Source: Chen et al. 2024, "PixArt-α", section 2.3, for cross-attention and adaLN-single; Esser et al. 2024, "Scaling
Rectified Flow Transformers for High-Resolution Image Synthesis", section 4, for joint attention (MM-DiT).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.adaln import FinalLayer
from ditbook.layers.attention import CrossAttention, SelfAttention, padding_mask
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import (
    check_choice,
    check_multiple,
    check_per_sample,
    check_positive,
    check_range,
    check_types,
)
from ditbook.layers.embeddings import LabelEmbedding, TimestepEmbedding, sincos_2d
from ditbook.layers.mlp import MLP
from ditbook.layers.modulation import layer_norm, modulate
from ditbook.layers.patches import PatchEmbed, unpatchify

PAD, BOS, EOS = 0, 1, 2  # tokens that fill up a text, begin it, and end it
STD = 0.02  # of the embeddings at the start


@dataclass(frozen=True, kw_only=True)
class TextDiTConfig:
    """A text-conditioned DiT. The defaults are those of the emoji of chapter 19.

    Raises:
        ValueError: no such block, a size that is not positive, sizes that do not divide one another, a dropout outside
            0 to 1.
    """

    size: int = 8  # side of the square latent (or image)
    channels: int = 6  # C
    patch: int = 2  # p
    width: int = 160  # D
    depth: int = 6  # blocks
    heads: int = 4  # of the blocks and of the text encoder
    vocabulary: int = 1424
    context: int = 12  # tokens of the longest text
    text_width: int = 128  # E
    text_depth: int = 2  # blocks of the text encoder
    num_classes: int = 0  # of a class that comes beside the text, such as a style; 0 for none
    dropout: float = 0.1  # fraction of the samples that are trained without text and class
    block: str = "cross-attention"  # one of `BLOCKS`

    def __post_init__(self) -> None:
        check_types(self)
        check_choice(self, "block", BLOCKS)
        check_positive(self, "size", "channels", "patch", "width", "depth", "heads", "vocabulary", "context")
        check_positive(self, "text_width", "text_depth")
        check_multiple("size", self.size, "patch", self.patch)
        check_multiple("width", self.width, "heads", self.heads)
        check_multiple("width", self.width, "sines and cosines of two axes:", 4)
        check_multiple("text_width", self.text_width, "heads", self.heads)
        check_range(self, "num_classes")
        check_range(self, "dropout", high=1)

    @property
    def tokens(self) -> int:
        """T = (size / patch)²."""
        return (self.size // self.patch) ** 2


class TextEncoder(nn.Module):
    """A small Transformer over the words of a text, learned with the rest: one vector a word, and one for all."""

    def __init__(self, config: TextDiTConfig) -> None:
        super().__init__()
        width = config.text_width
        self.words = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Parameter(STD * torch.randn(config.context, width))
        self.layers = nn.ModuleList(
            TransformerBlock(width, config.heads, pre_norm=True, gelu="tanh") for _ in range(config.text_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.project, self.project_mean = (nn.Linear(width, config.width) for _ in range(2))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Texts (B, S) → a vector for each word (B, S, D), and a map of the words' mean, without padding, (B, D)."""
        mask = padding_mask(tokens, PAD)  # (B, 1, 1, S)
        x = self.words(tokens) + self.positions[: tokens.shape[1]]  # (B, S, E)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        real = mask[:, 0, 0, :, None].to(x.dtype)  # (B, S, 1)
        return self.project(x), self.project_mean((x * real).sum(dim=1) / real.sum(dim=1))  # (19.1)


class CrossAttentionBlock(nn.Module):
    """Self-attention, cross-attention to the text, and an MLP. All blocks share one modulation and add an offset to it.

    Cross-attention is not modulated, has no norm, and starts at zero.

    Source: Chen et al. 2024, figure 4.
    """

    def __init__(self, width: int, heads: int, last: bool) -> None:
        super().__init__()
        self.attn, self.cross, self.mlp = SelfAttention(width, heads), CrossAttention(width, heads), MLP(width)
        self.offset = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, text: Tensor, c: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text as tokens, each with its new values; the text stays as it is.

        Args:
            x: image, (B, T, D).
            text: (B, S, D).
            c: the shared modulation, (B, 6, D): shift, scale and gate of attention and of the MLP.
            mask: which tokens of the text are words, (B, 1, 1, S).
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (c + self.offset).unbind(dim=1)  # (B, D) each  # (19.4)
        x = x + gate[:, None] * self.attn(modulate(layer_norm(x), shift, scale))  # (19.5)
        x = x + self.cross(x, self.cross.project_kv(text), mask)  # (19.3), (19.6)
        return x + gate_mlp[:, None] * self.mlp(modulate(layer_norm(x), shift_mlp, scale_mlp)), text  # (19.7)


class Stream(nn.Module):
    """The weights of one of the two streams of a joint block: modulation, attention, MLP.

    Args:
        width: D.
        heads: H.
        read: whether the stream is only read: nothing comes after the block, so it gets no new values.
    """

    def __init__(self, width: int, heads: int, read: bool = False) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.modulation = nn.Linear(width, (2 if read else 6) * width)
        self.mlp = None if read else MLP(width)
        if read:
            self.attn.proj = nn.Identity()  # type: ignore[assignment]

    def project(self, x: Tensor, c: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Tokens (B, N, D), condition (B, D) → queries, keys and values, and what `finish` needs of the modulation."""
        shift, scale, *rest = self.modulation(c).view(len(c), -1, x.shape[-1]).unbind(dim=1)
        return self.attn.project(modulate(layer_norm(x), shift, scale)), tuple(rest)

    def finish(self, x: Tensor, attended: Tensor, rest: tuple[Tensor, ...]) -> Tensor:
        """Add what was attended to, (B, N, D), and the MLP's output, each by its gate."""
        if self.mlp is None:
            return x
        gate, shift_mlp, scale_mlp, gate_mlp = rest
        x = x + gate[:, None] * self.attn.proj(attended)  # (19.9)
        return x + gate_mlp[:, None] * self.mlp(modulate(layer_norm(x), shift_mlp, scale_mlp))


class JointBlock(nn.Module):
    """Two streams, image and text, each with its own weights, that attend to all tokens of both in one attention.

    Args:
        width: D.
        heads: H.
        last: whether no block follows; then the text gets no new values.

    Source: Esser et al. 2024, figure 2b.
    """

    def __init__(self, width: int, heads: int, last: bool) -> None:
        super().__init__()
        self.image, self.text = Stream(width, heads), Stream(width, heads, read=last)

    def forward(self, x: Tensor, text: Tensor, c: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text as tokens, each with its new values.

        Args:
            x: image, (B, T, D).
            text: (B, S, D).
            c: condition after SiLU, (B, D).
            mask: which tokens of the text are words, (B, 1, 1, S).
        """
        (of_image, rest), (of_text, text_rest) = self.image.project(x, c), self.text.project(text, c)
        q, k, v = (torch.cat(both, dim=2) for both in zip(of_image, of_text, strict=True))  # (B, H, T + S, D / H)
        allowed = F.pad(mask, (x.shape[1], 0), value=True)  # (B, 1, 1, T + S)
        out = rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), "b h n e -> b n (h e)")  # (19.8)
        attended, text_attended = out.split([x.shape[1], text.shape[1]], dim=1)
        return self.image.finish(x, attended, rest), self.text.finish(text, text_attended, text_rest)


BLOCKS: dict[str, Any] = {"cross-attention": CrossAttentionBlock, "joint": JointBlock}


class TextDiT(nn.Module):
    """Noisy image, timestep, text (and class) → what the process predicts. The forward pass is deterministic."""

    pos_embed: Tensor

    def __init__(self, config: TextDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = config.width, config.depth
        self.patch_embed = PatchEmbed(config.size, config.channels, config.patch, width)
        self.register_buffer("pos_embed", sincos_2d(width, config.size // config.patch).float(), persistent=False)
        self.time_embed = TimestepEmbedding(width)
        self.text_encoder = TextEncoder(config)
        self.label_embed = LabelEmbedding(config.num_classes, width) if config.num_classes else None
        self.modulation = nn.Linear(width, 6 * width) if config.block == "cross-attention" else None
        block = BLOCKS[config.block]  # sizes: (19.10)
        self.blocks = nn.ModuleList(block(width, config.heads, last=k + 1 == depth) for k in range(depth))
        self.final = FinalLayer(width, config.patch**2 * config.channels)
        self.initialize()

    def initialize(self) -> None:
        """As for the DiT: Xavier for the linear maps. What moves an image's tokens, and the last map, start at zero."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith(("modulation", "cross.proj", "final.linear")):
                    nn.init.zeros_(module.weight)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=STD)

    def null_condition(self, tokens: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """The condition without a text, for guidance: the empty text, and the null class, in the place of each.

        Args:
            tokens: (B, S), S at least 2.
            y: classes, (B,), for a model with classes.
        """
        empty = torch.full_like(tokens, PAD)
        empty[:, 0], empty[:, 1] = BOS, EOS
        if y is None or self.label_embed is None:
            return {"tokens": empty}
        return {"tokens": empty, "y": torch.full_like(y, self.label_embed.null)}

    def condition(self, t: Tensor, mean: Tensor, y: Tensor | None) -> Tensor:
        """Timesteps (B,), texts as one vector each (B, D), and classes (B,) → the condition after SiLU, (B, D).

        Raises:
            ValueError: classes are given to a model without them, missing for one with them, or not one for each image.
        """
        if (y is None) != (self.label_embed is None):
            has = "no classes: call it without y" if self.label_embed is None else "classes: call it with y"
            raise ValueError(f"this model has {has}")
        if y is not None:
            check_per_sample(y, len(t), "labels")
        c = self.time_embed(t) + mean  # (19.2)
        return F.silu(c if y is None or self.label_embed is None else c + self.label_embed(y))

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: noisy images, (B, C, size, size).
            t: timesteps of the training process, (B,).
            tokens: texts with begin and end, padded on the right, (B, S).
            y: classes, (B,), for a model with classes; `num_classes` is the null class.

        Returns:
            (B, C, size, size).

        Raises:
            ValueError: wrong shapes, images of whole numbers, a class out of range or where there are none.
        """
        check_per_sample(t, len(x), "timesteps")
        if tokens.ndim != 2 or len(tokens) != len(x) or tokens.shape[1] > self.config.context:
            wanted = f"({len(x)}, {self.config.context} or less)"
            raise ValueError(f"texts of shape {tuple(tokens.shape)}; this model takes {wanted}")
        text, mean = self.text_encoder(tokens)  # (B, S, D), (B, D)
        c = self.condition(t, mean, y)  # (B, D)
        signal = c if self.modulation is None else self.modulation(c).unflatten(1, (6, -1))
        mask = padding_mask(tokens, PAD)
        x = self.patch_embed(x) + self.pos_embed  # (B, T, D)
        for block in self.blocks:
            x, text = block(x, text, signal, mask)
        return unpatchify(self.final(x, c), self.config.patch, self.config.channels)
