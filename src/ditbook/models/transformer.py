"""The Transformer: encoder, decoder, and the two together.

Letters: `B` batch, `S` source tokens, `T` target tokens, `D` width, `H` heads, `E` width of one head, `V` vocabulary.
Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ditbook.data.tokenizer import PAD
from ditbook.generation import State
from ditbook.layers.attention import CrossAttention, Past, SelfAttention, padding_mask
from ditbook.layers.embeddings import sincos_1d
from ditbook.layers.mlp import MLP


@dataclass(frozen=True)
class TransformerConfig:
    """The design of an encoder–decoder. The paper's base model has width 512, depth 6 and 8 heads."""

    source: int  # vocabulary that is read
    target: int  # V, vocabulary that is written
    width: int = 128  # D
    depth: int = 2  # layers of the encoder, and of the decoder
    heads: int = 4  # H
    pre_norm: bool = True  # norms before the sublayers; the paper put them after the sums
    longest: int = 64  # tokens of the longest sentence, begin and end included


class Normed(nn.Module):
    """What the two kinds of layer share: residual sums, and a norm before or after each sublayer."""

    def __init__(self, width: int, sublayers: int, pre_norm: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps) for _ in range(sublayers))
        self.pre_norm = pre_norm

    def before(self, index: int, x: Tensor) -> Tensor:
        """What enters a sublayer."""
        return self.norms[index](x) if self.pre_norm else x  # (3.10)

    def after(self, index: int, x: Tensor) -> Tensor:
        """What leaves the sum."""
        return x if self.pre_norm else self.norms[index](x)  # (3.9)


class EncoderLayer(Normed):
    """Self-attention, then a perceptron on each token. `gelu` is one of `layers.mlp.GELU`, `eps` that of the norms."""

    def __init__(self, width: int, heads: int, pre_norm: bool, gelu: str = "tanh", eps: float = 1e-5) -> None:
        super().__init__(width, 2, pre_norm, eps)
        self.attention = SelfAttention(width, heads)
        self.mlp = MLP(width, gelu=gelu)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S, D) → (B, S, D); a mask as in `layers.attention`."""
        x = self.after(0, x + self.attention(self.before(0, x), mask))
        return self.after(1, x + self.mlp(self.before(1, x)))  # (3.11)


class DecoderLayer(Normed):
    """Causal self-attention, a look at the encoder's output, then a perceptron."""

    def __init__(self, width: int, heads: int, pre_norm: bool) -> None:
        super().__init__(width, 3, pre_norm)
        self.attention = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, past: Past, memory: Past, mask: Tensor | None = None) -> tuple[Tensor, Past]:
        """Read new tokens.

        Args:
            x: the new tokens, (B, T, D).
            past: keys and values of the tokens before them.
            memory: keys and values of the encoder's output, as `cross.remember` gives them.
            mask: which of these may be looked at.

        Returns:
            (B, T, D), and the past with the new tokens.
        """
        mixed, past = self.attention.extend(self.before(0, x), past)
        x = self.after(0, x + mixed)
        x = self.after(1, x + self.cross(self.before(1, x), memory, mask))
        return self.after(2, x + self.mlp(self.before(2, x))), past  # (3.12)


class Transformer(nn.Module):
    """Source tokens and the target so far → scores of the next target token.

    Args:
        config: the design.
    """

    positions: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, heads, pre_norm = config.width, config.heads, config.pre_norm
        self.embed_source, self.embed_target = nn.Embedding(config.source, width), nn.Embedding(config.target, width)
        self.register_buffer("positions", sincos_1d(width, torch.arange(config.longest)).float(), persistent=False)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, pre_norm) for _ in range(config.depth))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, pre_norm) for _ in range(config.depth))
        # With the norms inside, the sum that leaves the last layer has not been normed yet.
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(width) if pre_norm else nn.Identity() for _ in range(2))
        self.out = nn.Linear(width, config.target)
        self.initialise()

    def initialise(self) -> None:
        """Xavier for the linear maps; embeddings of variance 1/D, because they are multiplied by √D."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)

    def embed(self, table: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        """Words and places: (B, T) → (B, T, D), the first token standing at place `start`.

        Raises:
            ValueError: the sentence is longer than the table of positions.
        """
        end = start + tokens.shape[1]
        if end > self.config.longest:
            raise ValueError(f"a sentence of {end} tokens is longer than the {self.config.longest} this model knows")
        return table(tokens) * math.sqrt(self.config.width) + self.positions[start:end]  # (3.7)

    def start(self, source: Tensor) -> State:
        """Read the source (B, S), padded on the right: keys and values of every layer, and an empty past."""
        x, mask = self.embed(self.embed_source, source), padding_mask(source, PAD)
        for layer in self.encoder:
            x = layer(x, mask)
        x, state = self.encoder_norm(x), {"mask": mask}
        empty = x.new_zeros(len(x), self.config.heads, 0, self.config.width // self.config.heads)
        for i, layer in enumerate(self.decoder):
            state[f"memory{i}.k"], state[f"memory{i}.v"] = layer.cross.remember(x)  # type: ignore[union-attr, operator]
            state[f"past{i}.k"] = state[f"past{i}.v"] = empty
        return state

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the next tokens of the target (B, T) → logits (B, T, V) and the state after them."""
        x, state = self.embed(self.embed_target, target, state["past0.k"].shape[2]), dict(state)
        for i, layer in enumerate(self.decoder):
            past, memory = ((state[f"{name}{i}.k"], state[f"{name}{i}.v"]) for name in ("past", "memory"))
            x, (state[f"past{i}.k"], state[f"past{i}.v"]) = layer(x, past, memory, state["mask"])
        return self.out(self.decoder_norm(x)), state

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Write one token: the last one (B,) and the state → logits (B, V) and the next state."""
        logits, state = self.decode(token[:, None], state)
        return logits[:, 0], state

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Predict each next token of the target from those before it.

        Args:
            source: (B, S), padded on the right.
            target: (B, T), beginning with the begin token.

        Returns:
            Logits, (B, T, V).

        Raises:
            ValueError: a sentence is longer than the table of positions.
        """
        return self.decode(target, self.start(source))[0]
