"""DALL·E: one GPT over the words of a caption and the tokens of its image, in either order.

A sequence is two parts, each with a token that begins it: the text, padded to `text` places, and the image. The
vocabulary has all words first, then all codes of the image, then the token that begins an image. The order of the parts
is read off the first token.

Letters: `B` batch, `P` places of the text, `G` tokens along a side of the image, `T` = P + 1 + G² tokens of a whole
sequence, `S` tokens read so far, `V` vocabulary, `D` width.
Source: Ramesh et al. 2021, section 2.2 and appendix B.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ditbook.layers.attention import KVCache, causal_mask
from ditbook.layers.autoregressive import Autoregressive, State
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_positive, check_range, check_types

EPS = 1e-5  # of every LayerNorm
PAD, BOS = 0, 1  # words that fill up a text, and that begin it


@dataclass(frozen=True, kw_only=True)
class DALLEConfig:
    """A DALL·E. The defaults are the paper's.

    The paper's sparse attention (by row, by column, and in the last layer by a window) is not built: every token
    attends to all before it.

    Raises:
        ValueError: a size or `std` that is not positive, or a width that is not divisible by the heads.
    """

    words: int = 16384  # of the text, padding and begin included
    codes: int = 8192  # of the image
    text: int = 256  # P, places of the text, its begin included
    grid: int = 32  # G
    width: int = 3968  # D
    depth: int = 64
    heads: int = 62
    std: float = 0.02  # of the weights at the start

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "words", "codes", "text", "grid", "width", "depth", "heads")
        check_multiple("width", self.width, "heads", self.heads)
        check_range(self, "std", above=True)

    @property
    def vocabulary(self) -> int:
        """V: words, codes, and the token that begins an image."""
        return self.words + self.codes + 1

    @property
    def begin_image(self) -> int:
        """The token that begins an image, the last of the vocabulary."""
        return self.words + self.codes

    @property
    def length(self) -> int:
        """T, tokens of a whole sequence."""
        return self.text + 1 + self.grid**2


class DALLE(Autoregressive):
    """Tokens of a text and an image → logits of the token after each; those of the wrong kind are −∞."""

    def __init__(self, config: DALLEConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = nn.Embedding(config.vocabulary, width)  # also the output matrix
        self.padding = nn.Embedding(config.text, width)  # what padding is, at each place of the text
        self.places = nn.Embedding(config.text, width)  # of the text
        self.rows, self.columns = (nn.Embedding(config.grid, width) for _ in range(2))  # of the image
        self.layers = nn.ModuleList(
            TransformerBlock(width, config.heads, pre_norm=True, gelu="tanh", eps=EPS) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, EPS)
        self.initialize()

    def initialize(self) -> None:
        """GPT-2's: weights of standard deviation `std`, divided by √(2L) where a sublayer is added; biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                added = name.endswith(("proj.weight", "fc2.weight"))
                nn.init.normal_(parameter, std=self.config.std / math.sqrt(2 * self.config.depth if added else 1))

    def sequence(self, text: Tensor, image: Tensor, image_first: bool = False) -> Tensor:
        """Join a text and an image: words (B, P), begin included, and codes from 0 to K − 1, (B, n) → (B, P + 1 + n).

        With `image_first` the text may have fewer places than P, else the image may have fewer tokens than G².
        """
        begin = text.new_full((len(text), 1), self.config.begin_image)
        picture = torch.cat([begin, image + self.config.words], dim=1)
        return torch.cat([picture, text] if image_first else [text, picture], dim=1)

    def indices(self, first: Tensor, start: int, count: int) -> Tensor:
        """Which places of a sequence that begins with the text `count` tokens stand at, from the `start`-th on.

        The sequence that begins with the image is that one, turned by P places.

        Args:
            first: the first token of each sequence, (B,).

        Returns:
            (B, count), from 0 to T − 1.
        """
        at = torch.arange(start, start + count, device=first.device)
        turned = torch.where(first == self.config.begin_image, self.config.text, 0)
        return (at + turned[:, None]) % self.config.length

    def positions(self) -> Tensor:
        """The position embeddings of a sequence that begins with the text: (T, D).

        An image token has the sum of its row's and its column's, its begin none.
        """
        picture = (self.rows.weight[:, None] + self.columns.weight[None]).flatten(0, 1)
        return torch.cat([self.places.weight, torch.zeros_like(picture[:1]), picture])  # (9.12)

    def embed(self, tokens: Tensor, indices: Tensor) -> Tensor:
        """Tokens (B, T) at these places (B, T) → (B, T, D)."""
        filled = self.padding(indices.clamp(max=self.config.text - 1))
        x = torch.where((tokens == PAD)[..., None], filled, self.tokens(tokens))
        return x + self.positions()[indices]  # (9.12)

    def allowed(self, indices: Tensor) -> Tensor:
        """Which tokens may follow each place: places (B, T) → (B, T, V). Words in the text, codes in the image."""
        after, token = (indices + 1) % self.config.length, torch.arange(self.config.vocabulary, device=indices.device)
        kind = (token >= self.config.words).int() + (token == self.config.begin_image).int()  # 0, 1, 2
        wanted = (after >= self.config.text).int() + (after == self.config.text).int()
        return kind == wanted[..., None]

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the token after each: whole or shorter sequences (B, T) → logits (B, T, V).

        Raises:
            ValueError: more tokens than a text and an image have.
        """
        if tokens.shape[1] > self.config.length:
            raise ValueError(f"a sequence of {tokens.shape[1]} tokens; this model takes {self.config.length} at most")
        return self.logits(self.features(tokens), self.indices(tokens[:, 0], 0, tokens.shape[1]))

    def features(self, tokens: Tensor) -> Tensor:
        """What is compared with the embeddings of the token after each: (B, T) → (B, T, D)."""
        indices = self.indices(tokens[:, 0], 0, tokens.shape[1])
        x, mask = self.embed(tokens, indices), causal_mask(tokens.shape[1], tokens.device)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def logits(self, x: Tensor, indices: Tensor) -> Tensor:
        """Compare (B, T, D) with the embeddings of the tokens that may follow: (B, T, V)."""
        return (x @ self.tokens.weight.T).masked_fill(~self.allowed(indices), -torch.inf)  # (9.13)

    def parts(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens the loss counts as text, and which as image: two masks of the shape of `tokens`.

        Neither padding nor the tokens that begin a part are counted: they are certain.
        """
        words, begin = self.config.words, self.config.begin_image
        return (tokens < words) & (tokens != PAD) & (tokens != BOS), (tokens >= words) & (tokens != begin)

    def start(self, tokens: Tensor) -> State:
        """The state after the beginning of each sequence (B, T), at least one token, for `generation`.

        `generation` reads the last token of a prompt itself: `sample(model.step, model.start(prompt[:, :-1]),
        first=prompt[:, -1], …)`; what it writes are tokens of the whole vocabulary: subtract `words` for codes.
        """
        state = {"first": tokens[:, 0], "caches": [KVCache() for _ in self.layers]}
        return self.decode(tokens, state)[1]

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Next tokens (B, T) and the state → logits (B, T, V) and the state after them. The caches grow in place."""
        caches = cast("list[KVCache]", state["caches"])
        indices = self.indices(state["first"], len(caches[0]), tokens.shape[1])
        x = self.embed(tokens, indices)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cache=cache)
        return self.logits(self.norm(x), indices), state
