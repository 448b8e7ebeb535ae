"""Sequence to sequence with recurrent networks: an encoder reads, a decoder writes, and attention looks back.

Letters: `B` batch, `S` source tokens, `T` target tokens, `H` width of embeddings and states, `V` target vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ditbook.data.tokenizer import PAD
from ditbook.generation import State
from ditbook.models.rnn import GRU

KINDS = ("none", "additive", "dot")


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The design of an encoder–decoder.

    Raises:
        ValueError: no such kind of attention.
    """

    source: int  # vocabulary that is read
    target: int  # V, vocabulary that is written
    width: int = 128  # H
    attention: str = "additive"

    def __post_init__(self) -> None:
        if self.attention not in KINDS:
            raise ValueError(f"no kind of attention {self.attention!r}; there are {', '.join(KINDS)}")


class Attention(nn.Module):
    """Scores of every query against every key, a softmax, and the mean of the memory under it.

    Args:
        kind: "additive", vᵀ tanh(W q + U k), or "dot", qᵀ U k.
        width: H of queries and keys.
        memory: width of what is looked at.

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
        """Look.

        Args:
            query: (B, T, H).
            memory: (B, S, M).
            mask: (B, S), False at padding.

        Returns:
            Contexts (B, T, M) and weights (B, T, S), each row summing to one, zero at padding.
        """
        key = self.key(memory)  # (B, S, H)
        if self.kind == "additive":
            scores = self.score(torch.tanh(self.query(query)[:, :, None] + key[:, None])).squeeze(-1)  # (2.5)
        else:
            scores = query @ key.transpose(1, 2)  # (2.6)
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)  # (2.3)
        return weights @ memory, weights  # (2.4)


class Seq2Seq(nn.Module):
    """Source tokens and the target so far → scores of the next target token.

    The encoder reads in both directions. Without attention all that the decoder learns about the source is its first
    state; with attention it looks back after each of its steps.

    Args:
        config: the design.

    Source: Sutskever et al. 2014 and Cho et al. 2014 without attention; Bahdanau et al. 2015 for the two-way encoder;
    Luong et al. 2015, section 3, for looking after the step and not before.
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
        """Read the source (B, S), padded on the right: the memory of all its places, and the decoder's first state."""
        mask = source != PAD
        x = self.embed_source(source)
        there, (last,) = self.forwards(x, mask=mask)  # (2.1)
        back, (first,) = self.backwards(x.flip(1), mask=mask.flip(1))
        memory = torch.cat([there, back.flip(1)], dim=-1)  # (B, S, 2·H)
        hidden = torch.tanh(self.bridge(torch.cat([last, first], dim=-1)))  # (2.2)
        return {"hidden": hidden, "memory": memory, "mask": mask}

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Read the target so far (B, T): logits (B, T, V), the next state, and the weights (B, T, S) of attention."""
        x, (hidden,) = self.decoder(self.embed_target(target), (state["hidden"],))
        weights = None
        if self.config.attention != "none":
            context, weights = self.attention(x, state["memory"], state["mask"])
            x = torch.tanh(self.combine(torch.cat([x, context], dim=-1)))  # (2.7)
        return self.out(x), {**state, "hidden": hidden}, weights

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Write one token: the last one (B,) and the state → logits (B, V) and the next state."""
        logits, state, _ = self.decode(token[:, None], state)
        return logits[:, 0], state

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Predict each next token of the target from those before it.

        Args:
            source: (B, S), padded on the right.
            target: (B, T), beginning with the begin token.

        Returns:
            Logits, (B, T, V).
        """
        return self.decode(target, self.start(source))[0]

    @torch.no_grad()
    def alignment(self, source: Tensor, target: Tensor) -> Tensor:
        """Where the decoder looks as it writes each token of the target: (B, T, S).

        Raises:
            ValueError: the model has no attention.
        """
        weights = self.decode(target, self.start(source))[2]
        if weights is None:
            raise ValueError("this model has no attention, so it looks nowhere")
        return weights
