"""Recurrent networks written from their equations: RNN, LSTM, GRU, and a language model on top.

Weights are laid out as in `torch.nn`, gates one below the other. Letters: `B` batch, `T` time, `D` width of the
input, `H` width of the state, `V` vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # what a layer hands to its next step, each (B, H)


class Recurrent(nn.Module):
    """What the three layers share: the inputs of all steps are projected at once, then the state goes step by step.

    Args:
        width: D.
        hidden: H.
    """

    gates = 1  # blocks of H rows in each of the two matrices
    parts = 1  # tensors in the state

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = nn.Linear(width, self.gates * hidden)
        self.recurrent = nn.Linear(hidden, self.gates * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def start(self, batch: int) -> State:
        """The state before the first step: zeros."""
        zeros = self.input.weight.new_zeros(batch, self.hidden)
        return (zeros,) * self.parts

    def step(self, projected: Tensor, state: State) -> State:
        """One step: projected input (B, gates·H) and state → the next state, its output first."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Read a sequence.

        Args:
            x: (B, T, D).
            state: where to start; zeros by default.
            mask: (B, T), False where a step is padding, which leaves the state as it is.

        Returns:
            The outputs (B, T, H) and the last state.

        Raises:
            ValueError: the sequence is empty.
        """
        if x.shape[1] == 0:
            raise ValueError("the sequence is empty: there is no step to take")
        state = self.start(len(x)) if state is None else state
        outputs = []
        for t, projected in enumerate(self.input(x).unbind(1)):
            following = self.step(projected, state)
            if mask is not None:
                here = mask[:, t, None]
                following = tuple(torch.where(here, new, old) for new, old in zip(following, state, strict=True))
            state = following
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state


class RNN(Recurrent):
    """The simple recurrent network. Source: Elman 1990."""

    def step(self, projected: Tensor, state: State) -> State:
        """The state is a tanh of input and old state."""
        (h,) = state
        return (torch.tanh(projected + self.recurrent(h)),)  # (1.1)


class LSTM(Recurrent):
    """Long short-term memory with a forget gate: a cell that is added to, and three gates around it.

    Source: Hochreiter & Schmidhuber 1997; the forget gate is that of Gers et al. 2000.
    """

    gates, parts = 4, 2

    def step(self, projected: Tensor, state: State) -> State:
        """Forget a share of the cell, add to it, and show a share of it."""
        h, c = state
        i, f, g, o = (projected + self.recurrent(h)).chunk(4, dim=-1)  # (1.8)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # (1.9)
        return o.sigmoid() * c.tanh(), c  # (1.10)


class GRU(Recurrent):
    """Gated recurrent unit: two gates and no cell.

    The reset gate acts on the recurrent product, as in `torch.nn` and cuDNN; the first version of the paper let it act
    on the state before the product.

    Source: Cho et al. 2014.
    """

    gates = 3

    def step(self, projected: Tensor, state: State) -> State:
        """Mix the old state with a candidate that saw a share of it."""
        (h,) = state
        x_r, x_z, x_n = projected.chunk(3, dim=-1)
        h_r, h_z, h_n = self.recurrent(h).chunk(3, dim=-1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()  # (1.11)
        n = torch.tanh(x_n + r * h_n)  # (1.12)
        return ((1 - z) * n + z * h,)  # (1.13)


LAYERS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


@dataclass(frozen=True)
class LanguageModelConfig:
    """The design of a recurrent language model.

    Raises:
        ValueError: no such kind of layer.
    """

    vocabulary: int  # V
    width: int = 64  # D, of the embedding
    hidden: int = 256  # H
    layers: int = 1
    kind: str = "lstm"

    def __post_init__(self) -> None:
        if self.kind not in LAYERS:
            raise ValueError(f"no kind of layer {self.kind!r}; there are {', '.join(LAYERS)}")


class LanguageModel(nn.Module):
    """Tokens so far → scores of the next token.

    Args:
        config: the design.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        widths = [config.width] + [config.hidden] * (config.layers - 1)
        self.layers = nn.ModuleList(LAYERS[config.kind](width, config.hidden) for width in widths)
        self.out = nn.Linear(config.hidden, config.vocabulary)

    def forward(self, tokens: Tensor, states: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Predict.

        Args:
            tokens: (B, T).
            states: one per layer, from an earlier call; the text goes on from there.

        Returns:
            Logits of the next token at each place, (B, T, V), and the states after the last.
        """
        x, after = self.embed(tokens), []
        for index, layer in enumerate(self.layers):
            x, state = layer(x, None if states is None else states[index])
            after.append(state)
        return self.out(x), after  # (1.2)

    @torch.no_grad()
    def write(self, start: Tensor, length: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Go on writing, one sampled token at a time.

        Args:
            start: (B, T), the beginning of each text.
            length: how many tokens to add.
            generator: where the random numbers come from.
            temperature: divides the logits; small values make the text safer and duller.

        Returns:
            (B, T + length).
        """
        tokens, (logits, states) = [start], self(start)
        for _ in range(length):
            chances = (logits[:, -1] / temperature).softmax(dim=-1)
            tokens.append(torch.multinomial(chances, 1, generator=generator))
            logits, states = self(tokens[-1], states)
        return torch.cat(tokens, dim=1)
