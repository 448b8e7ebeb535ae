"""Recurrent layers written from their equations: RNN, LSTM, GRU.

Weights are laid out as in `torch.nn`, gates one below the other. Letters: `B` batch, `T` tokens, `D` width of the
input, `H` width of the state.
"""

import torch
from torch import Tensor, nn

Hidden = tuple[Tensor, ...]  # the state of a layer, each part (B, H)


class Recurrent(nn.Module):
    """A recurrent layer: projects the inputs of all steps at once, then updates the state step by step.

    Args:
        width: D, of the input.
        hidden: H, of the state.
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

    def start(self, batch: int) -> Hidden:
        """The state before the first step: zeros, (batch, H)."""
        zeros = self.input.weight.new_zeros(batch, self.hidden)
        return (zeros,) * self.parts

    def step(self, projected: Tensor, state: Hidden) -> Hidden:
        """One step: projected input (B, gates·H) and state → the next state, of which the first part is the output."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: Hidden | None = None, mask: Tensor | None = None) -> tuple[Tensor, Hidden]:
        """Read a sequence.

        Args:
            x: (B, T, D).
            state: the state before the first step; zeros by default.
            mask: (B, T), False at padding, which leaves the state as it is.

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

    def step(self, projected: Tensor, state: Hidden) -> Hidden:
        """tanh of the projected input plus the projected state."""
        (h,) = state
        # Its Jacobian by h is diag(1 - h'²) W. Autograd multiplies these over time (1.7), adds what each step's loss
        # says of its state (1.5), and sums over the steps for the gradient of W (1.6).
        return (torch.tanh(projected + self.recurrent(h)),)  # (1.1)


class LSTM(Recurrent):
    """Long short-term memory with a forget gate: a cell that is added to, and three gates around it.

    Source: Hochreiter & Schmidhuber 1997; the forget gate is that of Gers et al. 2000.
    """

    gates, parts = 4, 2

    def step(self, projected: Tensor, state: Hidden) -> Hidden:
        """The forget gate scales the cell, the input gate what is added to it, the output gate what leaves it."""
        h, c = state
        i, f, g, o = (projected + self.recurrent(h)).chunk(4, dim=-1)  # (1.8)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # (1.9)
        return o.sigmoid() * c.tanh(), c  # (1.10)


class GRU(Recurrent):
    """Gated recurrent unit: two gates and no cell.

    The reset gate acts on the recurrent product, as in `torch.nn`, cuDNN and the first version of the paper; its last
    version lets the gate act on the state before the product.

    Source: Cho et al. 2014 (arXiv 1406.1078, version 1; the other order is that of version 3).
    """

    gates = 3

    def step(self, projected: Tensor, state: Hidden) -> Hidden:
        """The update gate mixes the old state with a candidate, for which the reset gate scales the old state."""
        (h,) = state
        x_r, x_z, x_n = projected.chunk(3, dim=-1)
        h_r, h_z, h_n = self.recurrent(h).chunk(3, dim=-1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()  # (1.11)
        n = torch.tanh(x_n + r * h_n)  # (1.12)
        return ((1 - z) * n + z * h,)  # (1.13)


LAYERS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
