"""A language model of recurrent layers.

Letters: `B` batch, `T` tokens, `D` width of the embedding, `H` width of the state, `V` vocabulary.
Source: Mikolov et al. 2010, "Recurrent neural network based language model".
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ditbook.layers.autoregressive import Autoregressive
from ditbook.layers.checks import check_choice, check_positive, check_types
from ditbook.layers.recurrent import LAYERS, Hidden, Recurrent


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Hyperparameters of a recurrent language model.

    Raises:
        ValueError: no such kind of layer, or a size below 1.
    """

    vocabulary: int  # V
    width: int = 64  # D
    hidden: int = 256  # H
    layers: int = 1
    kind: str = "lstm"  # one of ditbook.layers.recurrent.LAYERS

    def __post_init__(self) -> None:
        check_types(self)
        check_choice(self, "kind", LAYERS, "kind of layer")
        check_positive(self, "vocabulary", "width", "hidden", "layers")


class LanguageModel(Autoregressive):
    """Tokens so far → logits of the next token."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        widths = [config.width] + [config.hidden] * (config.layers - 1)
        layers = (LAYERS[config.kind](width, config.hidden) for width in widths)
        self.layers: list[Recurrent] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.out = nn.Linear(config.hidden, config.vocabulary)

    def start(self, tokens: Tensor) -> list[Hidden]:
        """The states of all layers after reading `tokens` (B, T); with T = 0 they are zeros."""
        states = [layer.start(len(tokens)) for layer in self.layers]
        return self.decode(tokens, states)[1] if tokens.shape[1] else states

    def decode(self, tokens: Tensor, state: list[Hidden]) -> tuple[Tensor, list[Hidden]]:
        """Read the next tokens (B, T): logits of the token after each (B, T, V), and the states after the last.

        Raises:
            ValueError: there is no token.
        """
        x, after = self.embed(tokens), []  # (B, T, D)
        for layer, hidden in zip(self.layers, state, strict=True):
            x, hidden = layer(x, hidden)  # (B, T, H)
            after.append(hidden)
        return self.out(x), after  # (1.2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the token after each: (B, T) → logits (B, T, V).

        Raises:
            ValueError: there is no token.
        """
        return self.decode(tokens, self.start(tokens[:, :0]))[0]
