"""GPT: the decoder of the Transformer alone, which predicts the next token of a text.

Letters: `B` batch, `T` tokens read now, `S` tokens read so far, those included, `D` width, `L` layers, `H` heads,
`V` vocabulary.
Source: Radford et al. 2018 (GPT-1), section 3.1; Radford et al. 2019 (GPT-2), section 2.3; Brown et al. 2020 (GPT-3),
table 2.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbook.layers.attention import KVCache, attention_map, causal_mask
from ditbook.layers.autoregressive import Autoregressive, State
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_positive, check_range, check_types
from ditbook.layers.complexity import Complexity

EPS = 1e-5  # of every LayerNorm

SIZES: dict[str, dict[str, Any]] = {  # the papers', with their parameters
    "GPT-1": {"vocabulary": 40478, "longest": 512, "width": 768, "depth": 12, "heads": 12, "pre_norm": False},  # 117 M
    "GPT-2": {"width": 768, "depth": 12, "heads": 12},  # 124 M
    "GPT-2 medium": {"width": 1024, "depth": 24, "heads": 16},  # 355 M
    "GPT-2 large": {"width": 1280, "depth": 36, "heads": 20},  # 774 M
    "GPT-2 XL": {"width": 1600, "depth": 48, "heads": 25},  # 1.56 G
    "GPT-3": {"longest": 2048, "width": 12288, "depth": 96, "heads": 96},  # 175 G
}


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """A GPT. The defaults are the smallest GPT-2.

    GPT-3's layers with locally banded attention are not built; its parameters are those of this config. Dropout is
    left out.

    Raises:
        ValueError: a size or `std` that is not positive, a width that is not divisible by the heads.
    """

    vocabulary: int = 50257  # V
    longest: int = 1024  # tokens of the longest text, the context
    width: int = 768  # D
    depth: int = 12  # L
    heads: int = 12  # H
    pre_norm: bool = True  # norms before the sublayers and after the last; GPT-1: after the sums, and none at the end
    std: float = 0.02  # of the weights at the start

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "vocabulary", "longest", "width", "depth", "heads")
        check_multiple("width", self.width, "heads", self.heads)
        check_range(self, "std", above=True)

    @classmethod
    def from_name(cls, name: str, **changes: Any) -> "GPTConfig":
        """The config of a named model, with fields changed at will.

        >>> GPTConfig.from_name("GPT-2 XL").parameters
        1557611200

        Raises:
            ValueError: no such model, or what the config refuses.
        """
        if name not in SIZES:
            raise ValueError(f"no model {name!r}; there are {', '.join(SIZES)}")
        return cls(**{**SIZES[name], **changes})

    @property
    def body(self) -> int:
        """Parameters of the layers and the last norm, without the embeddings: N in Kaplan et al. 2020."""
        norm = 2 * self.width if self.pre_norm else 0
        return self.depth * TransformerBlock.complexity(1, self.width).trainable + norm

    @property
    def parameters(self) -> int:
        """Parameters by formula; the output matrix is the embedding and counts once."""
        return (self.vocabulary + self.longest) * self.width + self.body  # (5.6)

    def complexity(self) -> Complexity:
        """Counts for one text of `longest` tokens, by formula."""
        T, D, block = self.longest, self.width, TransformerBlock.complexity(self.longest, self.width)
        return Complexity(
            macs=self.depth * block.macs + T * D * self.vocabulary,
            norms=self.depth * block.norms + (T * D if self.pre_norm else 0),
            trainable=self.parameters,
        )


class GPT(Autoregressive):
    """Tokens → logits of the token after each.

    Training pads texts on the right: no token attends to what comes after it, so padding changes nothing before it,
    and the loss leaves out the targets that are padding. Prompts of different lengths are padded on the left, with a
    mask that is False there: then the last token of each is in the same column.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = nn.Embedding(config.vocabulary, width)  # also the output matrix
        self.positions = nn.Embedding(config.longest, width)
        self.layers = nn.ModuleList(
            TransformerBlock(width, config.heads, pre_norm=config.pre_norm, gelu="tanh", eps=EPS)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, EPS) if config.pre_norm else nn.Identity()
        self.initialize()

    def initialize(self) -> None:
        """GPT-2's: weights of standard deviation `std`, divided by √(2L) where a sublayer is added; biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                added = name.endswith(("proj.weight", "fc2.weight"))
                std = self.config.std / math.sqrt(2 * self.config.depth) if added else self.config.std  # (5.5)
                nn.init.normal_(parameter, std=std)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token and position embeddings: (B, T) and the mask of all tokens so far, (B, S) → (B, T, D).

        A token's position is the number of tokens before it that are not padding.

        Raises:
            ValueError: the text is longer than the table of positions.
        """
        if mask.shape[1] > self.config.longest:
            raise ValueError(f"a text of {mask.shape[1]} tokens; this model takes {self.config.longest} at most")
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, mask.shape[1] - tokens.shape[1] :]  # (B, T)
        return self.tokens(tokens) + self.positions(places)  # (5.3)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """All tokens after the last norm: (B, T) → (B, T, D).

        Args:
            tokens: (B, T), padded on either side.
            mask: (B, T), True for tokens, False for padding; not needed for padding on the right.

        Raises:
            ValueError: the text is longer than the table of positions, or the mask has another shape.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        _check_mask(mask, tokens)
        x, attended = self.embed(tokens, mask), attended_mask(mask, tokens.shape[1])
        for layer in self.layers:
            x = layer(x, attended)  # (5.3)
        return self.norm(x)  # (B, T, D)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict the token after each: (B, T) → logits (B, T, V). Arguments and errors as for `encode`."""
        return self.logits(self.encode(tokens, mask))

    def logits(self, x: Tensor) -> Tensor:
        """Compare the last layer's tokens (B, T, D) with every embedding: (B, T, V)."""
        return x @ self.tokens.weight.T  # (5.4)

    def start(self, tokens: Tensor, mask: Tensor | None = None) -> State:
        """The state after the beginning of each text (B, T), which may be empty, (B, 0).

        "mask" is (B, S); "caches" has an entry for each layer. `generation` reads the last token of a prompt itself:
        `greedy(model.step, model.start(prompt[:, :-1]), first=prompt[:, -1], …)`.

        Args:
            tokens: (B, T), padded on the left.
            mask: (B, T), True for tokens, False for padding.

        Raises:
            ValueError: as for `encode`.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        _check_mask(mask, tokens)
        state = {"mask": mask[:, :0], "caches": [KVCache() for _ in self.layers]}
        return self.read(tokens, state, mask)[1]

    def read(self, tokens: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Next tokens (B, T), the state, and the mask of these tokens → (B, T, D) and the state after them.

        The caches of the state grow in place.
        """
        mask = torch.cat([state["mask"], mask], dim=1)  # (B, S)
        x, attended = self.embed(tokens, mask), attended_mask(mask, tokens.shape[1])
        for layer, cache in zip(self.layers, state["caches"], strict=True):
            x = layer(x, attended, cache=cache)
        return self.norm(x), {"mask": mask, "caches": state["caches"]}

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Next tokens (B, T), none of them padding, and the state → logits (B, T, V) and the state after them."""
        x, state = self.read(tokens, state, torch.ones_like(tokens, dtype=torch.bool))
        return self.logits(x), state

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor) -> Tensor:
        """The attention weights of every layer and head, for figures: (B, T) → (B, L, H, T, T)."""
        mask = torch.ones_like(tokens, dtype=torch.bool)
        x, attended, maps = self.embed(tokens, mask), attended_mask(mask, tokens.shape[1]), []
        for layer in cast("Sequence[Any]", self.layers):
            maps.append(attention_map(layer.attention, layer.norms[0](x) if layer.pre_norm else x, attended))
            x = layer(x, attended)
        return torch.stack(maps, dim=1)


def _check_mask(mask: Tensor, tokens: Tensor) -> None:
    if mask.shape != tokens.shape:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} for tokens {tuple(tokens.shape)}; one each is needed")


def attended_mask(mask: Tensor, queries: int) -> Tensor:
    """Which of S keys each of the last T tokens attends to: itself, and the tokens before it that are not padding.

    Args:
        mask: (B, S), False for padding.
        queries: T.

    Returns:
        (B, 1, T, S).
    """
    causal = causal_mask(queries, mask.device, seen=mask.shape[1] - queries)  # (T, S)
    before = causal.tril(mask.shape[1] - queries - 1)
    # Padding attends to itself: a row without any key would be 0/0.
    return (before & mask[:, None, None]) | (causal & ~before)


class GPTScorer(nn.Module):
    """Tokens → a number after each: a reward model, read at the end of a text, or a value network, read at each token.

    Args:
        config: of the GPT whose last layer is read; its output matrix is not used.

    Source: Stiennon et al. 2020, section 3.4 and appendix B.1; Ouyang et al. 2022, section 3.5.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = GPT(config)
        self.head = nn.Linear(config.width, 1)
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(config.width + 1))
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) → (B, T). Arguments and errors as for `GPT.encode`."""
        return self.head(self.trunk.encode(tokens, mask))[..., 0]


class ActorCritic(nn.Module):
    """A policy and its value network, which share no weights: what PPO trains."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.policy, self.value = GPT(config), GPTScorer(config)


GPTScorerConfig = ActorCriticConfig = GPTConfig  # the names under which `weights` finds the configs
