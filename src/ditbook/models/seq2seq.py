"""Sequence to sequence with recurrent networks: an encoder, a decoder, and attention from one to the other.

Letters: `B` batch, `S` source tokens, `T` target tokens, `H` width of embeddings and states, `V` target vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ditbook.layers.autoregressive import EncoderDecoder, State
from ditbook.layers.checks import check_choice, check_positive, check_range, check_types
from ditbook.layers.recurrent import GRU

KINDS = ("none", "additive", "dot")


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """Hyperparameters of a recurrent encoder–decoder.

    Raises:
        ValueError: no such kind of attention, a size below 1, or a padding token outside of the source vocabulary.
    """

    source: int  # size of the source vocabulary
    target: int  # V, size of the target vocabulary
    width: int = 128  # H
    attention: str = "additive"  # one of KINDS
    pad: int = 0  # the token of the source that is padding

    def __post_init__(self) -> None:
        check_types(self)
        check_choice(self, "attention", KINDS, "kind of attention")
        check_positive(self, "source", "target", "width")
        check_range(self, "pad", high=self.source - 1)


class Attention(nn.Module):
    """Attend from each query to the memory: score every key, take the softmax, and average the memory by it.

    Args:
        kind: "additive", vᵀ tanh(W q + U k), or "dot", qᵀ U k.
        width: H of queries and keys.
        memory: M, width of the memory.

    Source: Bahdanau et al. 2015, appendix A.1.2; Luong et al. 2015, equation 8, "general".
    """

    def __init__(self, kind: str, width: int, memory: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory, width, bias=False)
        if kind == "additive":
            self.query = nn.Linear(width, width)
            self.score = nn.Linear(width, 1, bias=False)
        self.kind = kind

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            query: (B, T, H).
            memory: (B, S, M).
            mask: (B, S), False at padding.

        Returns:
            Contexts (B, T, M), and attention weights (B, T, S), each row summing to one, zero at padding.
        """
        key = self.key(memory)  # (B, S, H)
        if self.kind == "additive":
            scores = self.score(torch.tanh(self.query(query)[:, :, None] + key[:, None])).squeeze(-1)  # (2.5)
        else:
            scores = query @ key.transpose(1, 2)  # (2.6)
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)  # (2.3)
        return weights @ memory, weights  # (2.4)


class Seq2Seq(EncoderDecoder):
    """Source tokens and the target so far → logits of the next target token.

    The encoder reads in both directions. Without attention the decoder knows of the source only its own first state;
    with attention it attends to the encoder's outputs after each of its steps.

    Source: Sutskever et al. 2014 and Cho et al. 2014 without attention; Bahdanau et al. 2015 for the bidirectional
    encoder; Luong et al. 2015, section 3, for attention after the step and not before.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed_source, self.embed_target = nn.Embedding(config.source, width), nn.Embedding(config.target, width)
        self.forwards, self.backwards = GRU(width, width), GRU(width, width)
        self.bridge = nn.Linear(2 * width, width)
        self.decoder = GRU(width, width)
        if config.attention != "none":
            self.attention = Attention(config.attention, width, 2 * width)
            self.combine = nn.Linear(3 * width, width)
        self.out = nn.Linear(width, config.target)

    def start(self, source: Tensor) -> State:
        """Read the source (B, S), padded on the right: the memory (B, S, 2·H), and the decoder's first state (B, H)."""
        mask = source != self.config.pad
        x = self.embed_source(source)
        there, (last,) = self.forwards(x, mask=mask)  # (2.1)
        back, (first,) = self.backwards(x.flip(1), mask=mask.flip(1))
        memory = torch.cat([there, back.flip(1)], dim=-1)  # (B, S, 2·H)
        hidden = torch.tanh(self.bridge(torch.cat([last, first], dim=-1)))  # (2.2)
        return {"hidden": hidden, "memory": memory, "mask": mask}

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the next tokens of the target (B, T): logits of the token after each (B, T, V), and the next state."""
        x, (hidden,) = self.decoder(self.embed_target(target), (state["hidden"],))
        if self.config.attention != "none":
            context, _ = self.attention(x, state["memory"], state["mask"])
            x = torch.tanh(self.combine(torch.cat([x, context], dim=-1)))  # (2.7)
        return self.out(x), {**state, "hidden": hidden}

    @torch.no_grad()
    def alignment(self, source: Tensor, target: Tensor) -> Tensor:
        """Attention weights from each token of the target to the source: (B, T, S).

        Raises:
            ValueError: the model has no attention.
        """
        if self.config.attention == "none":
            raise ValueError('this model has no attention weights; take one with attention "additive" or "dot"')
        state = self.start(source)
        x, _ = self.decoder(self.embed_target(target), (state["hidden"],))
        return self.attention(x, state["memory"], state["mask"])[1]
