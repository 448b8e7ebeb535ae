"""BERT: a Transformer encoder that is trained by filling gaps in text.

Letters: `B` batch, `T` tokens, `D` width, `L` layers, `H` heads, `V` vocabulary, `P` positions.
Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3 and appendix A.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.layers.attention import attention_map, causal_mask, padding_mask
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_positive, check_range, check_types
from ditbook.layers.complexity import Complexity

EPS = 1e-12  # of every LayerNorm

# depth, width and heads; all read 30,522 tokens, the vocabulary of the uncased models
SIZES = {
    "bert-tiny": (2, 128, 2),  # 4,385,920 parameters without the two heads
    "bert-mini": (4, 256, 4),  # 11,170,560
    "bert-base": (12, 768, 12),  # 109,482,240
    "bert-large": (24, 1024, 16),  # 335,141,888
}


@dataclass(frozen=True, kw_only=True)
class BERTConfig:
    """A BERT. The defaults are bert-base-uncased. The paper's dropout is left out.

    Raises:
        ValueError: a size that is not positive, a width that is not divisible by the heads, a padding token outside
            the vocabulary.
    """

    vocabulary: int = 30_522  # V
    positions: int = 512  # P, tokens of the longest text
    segments: int = 2  # kinds of segment: first sentence, second sentence
    width: int = 768  # D
    depth: int = 12  # L
    heads: int = 12  # H
    pad: int = 0  # token that is padding
    causal: bool = False  # each token attends only to those before it and to itself: the rival that reads left to right

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "vocabulary", "positions", "segments", "width", "depth", "heads")
        check_multiple("width", self.width, "heads", self.heads)
        check_range(self, "pad", high=self.vocabulary - 1)

    @classmethod
    def from_name(cls, name: str, **changes: Any) -> "BERTConfig":
        """The config of a named size, with fields changed at will.

        >>> BERTConfig.from_name("bert-base", vocabulary=28_996).width
        768

        Raises:
            ValueError: no such size, or what the config refuses.
        """
        if name not in SIZES:
            raise ValueError(f"no model {name!r}; there are {', '.join(SIZES)}")
        return cls(**{**dict(zip(("depth", "width", "heads"), SIZES[name], strict=True)), **changes})

    def parameters(self) -> dict[str, int]:
        """Number of parameters of each part; the matrix that both embeds and predicts words is counted once."""
        V, P, S, D = self.vocabulary, self.positions, self.segments, self.width
        return {
            "embeddings": (V + P + S) * D + 2 * D,
            "layers": self.depth * (12 * D**2 + 13 * D),  # (3.16) for each
            "pooler": D**2 + D,
            "masked-word head": D**2 + D + 2 * D + V,
            "next-sentence head": 2 * D + 2,
        }  # (4.7)

    def complexity(self, tokens: int) -> Complexity:
        """Counts for one text of T tokens, both heads included."""
        T, D, V = tokens, self.width, self.vocabulary
        block = TransformerBlock.complexity(T, D)
        return Complexity(
            macs=self.depth * block.macs + T * (D**2 + D * V) + D**2 + 2 * D,
            norms=self.depth * block.norms + 2 * T * D,
            trainable=sum(self.parameters().values()),
        )


class BERT(nn.Module):
    """Tokens → logits of the word at each place, and of whether the second sentence follows the first."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.words = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.positions, width)
        self.segments = nn.Embedding(config.segments, width)
        self.embed_norm = nn.LayerNorm(width, EPS)
        self.layers = nn.ModuleList(
            TransformerBlock(width, config.heads, pre_norm=False, gelu="exact", eps=EPS) for _ in range(config.depth)
        )
        self.pooler = nn.Linear(width, width)
        self.transform = nn.Linear(width, width)
        self.transform_norm = nn.LayerNorm(width, EPS)
        self.word_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.next_sentence = nn.Linear(width, 2)
        self.initialize()

    def initialize(self) -> None:
        """Normal numbers for all matrices, of standard deviation 0.02 at the paper's width of 768, zero for all biases.

        At other widths the deviation goes with D^(−1/2), so that a product is as large as in the paper's model.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02 * math.sqrt(768 / self.config.width))
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def embed(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Word, position and segment embeddings, normalized: (B, T) → (B, T, D).

        Raises:
            ValueError: the text is longer than the table of positions, or `segments` has another shape.
        """
        if tokens.shape[1] > self.config.positions:
            raise ValueError(f"a text of {tokens.shape[1]} tokens; this model takes {self.config.positions} at most")
        if segments is None:
            segments = torch.zeros_like(tokens)
        if segments.shape != tokens.shape:
            raise ValueError(f"segments {tuple(segments.shape)} for tokens {tuple(tokens.shape)}; one each is needed")
        positions = self.positions.weight[: tokens.shape[1]]
        return self.embed_norm(self.words(tokens) + positions + self.segments(segments))  # (4.1)

    def mask(self, tokens: Tensor) -> Tensor:
        """Which keys each token may attend to: all that are not padding, or of these the earlier ones and itself.

        (B, T) → (B, 1, 1, T), or (B, 1, T, T) if the model is causal.
        """
        real = padding_mask(tokens, self.config.pad)
        return real & causal_mask(tokens.shape[1], tokens.device) if self.config.causal else real

    def encode(self, tokens: Tensor, *, segments: Tensor | None = None) -> Tensor:
        """The features of each token, (B, T) → (B, T, D).

        Args:
            tokens: (B, T), padded on the right.
            segments: 0 for tokens of the first sentence and 1 for those of the second, (B, T); by default all 0.

        Raises:
            ValueError: as `embed`.
        """
        x, mask = self.embed(tokens, segments), self.mask(tokens)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def pool(self, x: Tensor) -> Tensor:
        """What the first token says of the whole text: features (B, T, D) → (B, D)."""
        return self.pooler(x[:, 0]).tanh()  # (4.5)

    def word_logits(self, x: Tensor) -> Tensor:
        """Logits of the word at each place, by the transposed word embedding: features (..., D) → (..., V)."""
        x = self.transform_norm(F.gelu(self.transform(x)))
        return x @ self.words.weight.T + self.word_bias  # (4.3)

    def forward(self, tokens: Tensor, *, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) → logits of the words (B, T, V), and of the sentences (B, 2): 1 is a random second sentence.

        Args:
            tokens, segments: as for `encode`.

        Raises:
            ValueError: as `embed`.
        """
        x = self.encode(tokens, segments=segments)
        return self.word_logits(x), self.next_sentence(self.pool(x))

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor, *, segments: Tensor | None = None) -> Tensor:
        """The attention weights of every layer and head, for figures: (B, T) → (B, L, H, T, T)."""
        x, mask, maps = self.embed(tokens, segments), self.mask(tokens), []
        for layer in cast("Sequence[Any]", self.layers):
            maps.append(attention_map(layer.attention, x, mask))
            x = layer(x, mask)
        return torch.stack(maps, dim=1)
