"""The Transformer: encoder, decoder, and the two together.

Letters: `B` batch, `S` source tokens, `T` target tokens, `D` width, `H` heads, `V` target vocabulary.
Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbook.layers.attention import KV, KVCache, causal_mask, padding_mask
from ditbook.layers.autoregressive import Autoregressive, State
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_pairs, check_positive, check_range, check_types
from ditbook.layers.embeddings import sincos_1d


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """An encoder–decoder. The paper's base model has width 512, depth 6, 8 heads and post-norm.

    Two things of the paper are left out: its ReLU, in whose place stands the tanh approximation of GELU, and dropout.

    Raises:
        ValueError: a size that is not positive, a width that is odd or not divisible by the heads, a padding token
            outside the source vocabulary.
    """

    source: int  # tokens of the vocabulary that is read
    target: int  # V, tokens of the vocabulary that is written
    width: int = 128  # D
    depth: int = 2  # layers of the encoder, and of the decoder
    heads: int = 4  # H
    pre_norm: bool = True  # norms before the sublayers; the paper put them after the sums
    longest: int = 64  # tokens of the longest sentence, begin and end included
    pad: int = 0  # source token that is padding

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "source", "target", "width", "depth", "heads", "longest")
        check_multiple("width", self.width, "heads", self.heads)
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even: half sines, half cosines")
        check_range(self, "pad", high=self.source - 1)


class Transformer(Autoregressive):
    """Source tokens and the target so far → logits of the next target token."""

    positions: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed_source, self.embed_target = nn.Embedding(config.source, width), nn.Embedding(config.target, width)
        self.register_buffer("positions", sincos_1d(width, torch.arange(config.longest)).float(), persistent=False)
        self.encoder, self.decoder = (
            nn.ModuleList(
                TransformerBlock(width, config.heads, cross=cross, pre_norm=config.pre_norm, gelu="tanh")
                for _ in range(config.depth)
            )
            for cross in (False, True)
        )
        # With pre-norm, the sum that leaves the last layer has not been normalized yet.
        self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(width) if config.pre_norm else nn.Identity() for _ in range(2)
        )
        self.out = nn.Linear(width, config.target)
        self.initialize()

    def initialize(self) -> None:
        """Xavier for the linear maps; embeddings of variance 1/D, because they are multiplied by √D."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)

    def embed(self, table: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        """Token and position embeddings: (B, T) → (B, T, D), the first token at position `start`.

        Raises:
            ValueError: the sentence is longer than the table of positions.
        """
        end = start + tokens.shape[1]
        if end > self.config.longest:
            raise ValueError(f"a sentence of {end} tokens is longer than the {self.config.longest} this model takes")
        return table(tokens) * math.sqrt(self.config.width) + self.positions[start:end]  # (3.7)

    def encode(self, source: Tensor) -> tuple[list[KV], Tensor]:
        """Source (B, S), padded on the right → keys and values for each decoder layer, and the mask (B, 1, 1, S)."""
        x, mask = self.embed(self.embed_source, source), padding_mask(source, self.config.pad)
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.encoder_norm(x)  # (B, S, D)
        return [layer.cross.project_kv(x) for layer in cast("Sequence[Any]", self.decoder)], mask

    def start(self, source: Tensor) -> State:
        """Encode the source (B, S), padded on the right: the state before the first target token.

        "mask" is (B, 1, 1, S); "memory" and "caches" have an entry for each decoder layer.
        """
        memory, mask = self.encode(source)
        return {"mask": mask, "memory": memory, "caches": [KVCache() for _ in self.decoder]}

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, State]:
        """Next target tokens (B, T) and the state → logits (B, T, V) and the state after them.

        The caches of the state grow in place.
        """
        x = self.embed(self.embed_target, target, start=len(state["caches"][0]))  # (B, T, D)
        for layer, memory, cache in zip(self.decoder, state["memory"], state["caches"], strict=True):
            x = layer(x, memory=memory, memory_mask=state["mask"], cache=cache)
        return self.out(self.decoder_norm(x)), state

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Predict each next token of the target from those before it.

        Args:
            source: (B, S), padded on the right.
            target: (B, T), beginning with the begin token.

        Returns:
            Logits, (B, T, V).

        Raises:
            ValueError: a sentence is longer than the table of positions, or not one target for each source.
        """
        check_pairs(source, target)
        memory, mask = self.encode(source)
        x, causal = self.embed(self.embed_target, target), causal_mask(target.shape[1], target.device)
        for layer, kv in zip(self.decoder, memory, strict=True):
            x = layer(x, causal, kv, mask)  # (B, T, D)
        return self.out(self.decoder_norm(x))
