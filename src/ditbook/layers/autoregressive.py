"""The state and the step of all models that write tokens with `ditbook.generation`.

Letters: `B` batch, `S` source tokens, `T` target tokens, `V` vocabulary.
"""

from typing import Any

from torch import Tensor, nn

from ditbook.layers.checks import check_pairs

# Any nesting of dictionaries, lists and tuples of tensors with the batch first, and of objects with `select(rows)`,
# such as a KV cache.
State = Any


class Autoregressive(nn.Module):
    """A model that predicts the next token and keeps a state of the tokens before it.

    `start` gives the state before the first token that `step` reads.
    """

    def start(self, tokens: Tensor) -> State:
        """The state after reading `tokens`: a source (B, S), or the beginning of each text (B, T)."""
        raise NotImplementedError

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the next tokens (B, T): logits of the token after each (B, T, V), and the state after the last."""
        raise NotImplementedError

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token (B,): logits of the next (B, V), and the state after it."""
        logits, state = self.decode(token[:, None], state)
        return logits[:, 0], state


class EncoderDecoder(Autoregressive):
    """A model that reads a source and writes a target."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Predict each next token of the target from those before it.

        Args:
            source: (B, S), padded on the right.
            target: (B, T), beginning with the begin token.

        Returns:
            Logits, (B, T, V).

        Raises:
            ValueError: not one target for each source.
        """
        check_pairs(source, target)
        return self.decode(target, self.start(source))[0]
