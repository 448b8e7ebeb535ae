"""The two priors of unCLIP: from a caption to CLIP's vector of an image that it could describe.

Letters: `B` batch, `T` tokens of a caption, `J` width of CLIP's space, `D` width, `K` components, `V` values of each.
Source: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents", section 2.2.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.layers.attention import KVCache, causal_mask
from ditbook.layers.autoregressive import Autoregressive, State
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_per_sample, check_positive, check_range, check_rows, check_types
from ditbook.layers.components import QuantizedComponents
from ditbook.layers.directions import scaled
from ditbook.layers.embeddings import TimestepEmbedding

PAD = 0  # the token that fills up captions
STD = 0.02  # of the embeddings at the start


@dataclass(frozen=True, kw_only=True)
class DiffusionPriorConfig:
    """A Transformer over a caption and CLIP's vectors.

    Raises:
        ValueError: a size that is not positive, or a width that is not divisible by the heads.
    """

    joint: int = 768  # J
    vocabulary: int = 49408
    context: int = 77  # tokens of the longest caption
    width: int = 2048  # D
    depth: int = 24
    heads: int = 32

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, *(field.name for field in fields(self)))
        check_multiple("width", self.width, "heads", self.heads)


@dataclass(frozen=True, kw_only=True)
class AutoregressivePriorConfig(DiffusionPriorConfig):
    """The same, and how an image's vector becomes tokens. The defaults are the paper's.

    Raises:
        ValueError: as for the base, more components than the width of CLIP's space, or fewer than two values.
    """

    components: int = 319  # K
    values: int = 1024  # V
    dots: int = 64  # intervals of the similarity of image and caption; the paper gives no number

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "components", low=1, high=self.joint)
        check_range(self, "values", low=2)


class CaptionEmbedding(nn.Module):
    """The tokens of a caption, and CLIP's vector of it as one token more: (B, T), (B, J) → (B, T + 1, D)."""

    def __init__(self, config: DiffusionPriorConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.text = nn.Linear(config.joint, config.width)
        nn.init.normal_(self.words.weight, std=STD)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Embed captions, without positions."""
        return torch.cat([self.words(tokens), self.text(text)[:, None]], dim=1)


def padded(tokens: Tensor, length: int) -> Tensor:
    """Captions filled up with padding on the right: (B, T) → (B, length).

    Raises:
        ValueError: they are longer, or no rows.
    """
    check_rows(tokens, len(tokens), None, "captions")
    if tokens.shape[1] > length:
        raise ValueError(f"captions of {tokens.shape[1]} tokens are longer than the context of {length}")
    return F.pad(tokens, (0, length - tokens.shape[1]), value=PAD)


def caption_mask(tokens: Tensor, after: int) -> Tensor:
    """Each token attends to itself and to those before it, but not to padding: captions (B, T) → (B, 1, S, S).

    Args:
        tokens: captions, padded on the right; the first token is never padding, so that no row is empty.
        after: tokens that follow a caption, so that S = T + `after`.
    """
    real = F.pad(tokens != PAD, (0, after), value=True)  # (B, S)
    return real[:, None, None] & causal_mask(real.shape[1], tokens.device)


class DiffusionPrior(nn.Module):
    """A noisy vector of an image, timestep, caption → the clean vector, all scaled.

    The sequence is the caption's tokens, its vector, the timestep, the noisy vector, and a learned query, at whose
    place the clean vector is read off. Attention is causal.
    """

    def __init__(self, config: DiffusionPriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.caption = CaptionEmbedding(config)
        self.time = TimestepEmbedding(width)
        self.image = nn.Linear(config.joint, width)
        self.query = nn.Parameter(STD * torch.randn(width))
        self.positions = nn.Parameter(STD * torch.randn(config.context + 4, width))
        self.layers = _layers(config)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.joint)
        self.null = nn.Parameter(torch.zeros(config.joint))  # CLIP's vector of no caption

    def null_condition(self, tokens: Tensor, text: Tensor) -> dict[str, Tensor]:
        """The condition without a caption, for guidance: its first token (that of the beginning), a learned vector."""
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        return {"tokens": torch.where(first, tokens, PAD), "text": self.null.expand_as(text)}

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, text: Tensor) -> Tensor:
        """Predict the clean vector.

        Args:
            x: noisy vectors, (B, J).
            t: timesteps of the training process, (B,).
            tokens: captions, (B, T), padded on the right.
            text: CLIP's unit vectors of the captions, (B, J).

        Returns:
            (B, J), scaled.

        Raises:
            ValueError: a caption is longer than the context, or not one timestep, caption and vector for each vector.
        """
        tokens = padded(tokens, self.config.context)
        check_per_sample(t, len(tokens), "timesteps")
        check_rows(x, len(tokens), self.config.joint, "noisy vectors")
        check_rows(text, len(tokens), self.config.joint, "vectors of captions")
        rest = [self.time(t), self.image(x), self.query.expand(len(x), -1)]
        h = torch.cat([self.caption(tokens, scaled(text)), torch.stack(rest, dim=1)], dim=1)  # (B, T + 4, D)  # (14.6)
        h, mask = h + self.positions, caption_mask(tokens, after=4)
        for layer in self.layers:
            h = layer(h, mask)
        return self.out(self.norm(h[:, -1]))


class AutoregressivePrior(Autoregressive):
    """A caption, and how similar the image shall be to it → the codes of the image's vector, one after another.

    The sequence is the caption's tokens, its vector, a token for the similarity, and the codes. `dot_tokens` gives the
    similarity's token, the first that a step of generation reads.
    """

    edges: Tensor

    def __init__(self, config: AutoregressivePriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.components = QuantizedComponents(config.joint, config.components, config.values)
        self.register_buffer("edges", torch.linspace(-1, 1, config.dots + 1)[1:-1].contiguous())  # of similarities
        self.caption = CaptionEmbedding(config)
        self.codes = nn.Embedding(config.values + config.dots, width)
        self.positions = nn.Parameter(STD * torch.randn(config.context + 1 + config.components, width))
        self.layers = _layers(config)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.values)
        nn.init.normal_(self.codes.weight, std=STD)

    @torch.no_grad()
    def fit(self, image: Tensor, text: Tensor) -> None:
        """Take components, and equally frequent intervals of the similarity, from pairs of unit vectors (N, J)."""
        self.components.fit(image)
        inner = torch.arange(1, self.config.dots, device=image.device) / self.config.dots
        self.edges.copy_((image * text).sum(dim=1).quantile(inner))

    def dot_tokens(self, similarity: Tensor) -> Tensor:
        """The token of the interval that a similarity of image and caption lies in: (B,) → (B,)."""
        return self.config.values + torch.bucketize(similarity.contiguous(), self.edges)

    def forward(self, tokens: Tensor, text: Tensor, codes: Tensor) -> Tensor:
        """Predict each next code.

        Args:
            tokens: captions, (B, T), padded on the right.
            text: CLIP's unit vectors of the captions, (B, J).
            codes: (B, k): the similarity's token, then codes of the image.

        Returns:
            Logits of the code after each of these, (B, k, V).

        Raises:
            ValueError: a caption is longer than the context, or not one vector and one list of codes for each caption.
        """
        tokens = padded(tokens, self.config.context)
        check_rows(text, len(tokens), self.config.joint, "vectors of captions")
        check_rows(codes, len(tokens), None, "codes")
        h, mask = self.prefix(tokens, text), caption_mask(tokens, after=1 + codes.shape[1])
        h = torch.cat([h, self.embed_codes(codes, 0)], dim=1)  # (B, T + 1 + k, D)
        for layer in self.layers:
            h = layer(h, mask)
        return self.out(self.norm(h[:, tokens.shape[1] + 1 :]))  # (14.10)

    def prefix(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Caption, as long as the context, and its vector with their positions, (B, T + 1, D)."""
        return self.caption(tokens, scaled(text)) + self.positions[: tokens.shape[1] + 1]

    def embed_codes(self, codes: Tensor, start: int) -> Tensor:
        """Codes (B, k), of which the first is number `start` of the image, with their positions: (B, k, D)."""
        first = self.config.context + 1 + start
        return self.codes(codes) + self.positions[first : first + codes.shape[1]]

    def start(self, tokens: Tensor, text: Tensor | None = None) -> State:
        """The state after a caption: "real" (B, S) says which tokens are no padding; "caches", one for each layer.

        Raises:
            ValueError: no vector of the caption.
        """
        if text is None:
            raise ValueError("the prior needs CLIP's vector of each caption: start(tokens, text)")
        tokens = padded(tokens, self.config.context)
        check_rows(text, len(tokens), self.config.joint, "vectors of captions")
        state = {"real": F.pad(tokens != PAD, (0, 1), value=True), "caches": [KVCache() for _ in self.layers]}
        self._read(self.prefix(tokens, text), state)
        return state

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the similarity's token and codes (B, k): logits of the code after each, (B, k, V), and the state."""
        h = self.embed_codes(tokens, start=state["real"].shape[1] - self.config.context - 1)
        state = {"real": F.pad(state["real"], (0, tokens.shape[1]), value=True), "caches": state["caches"]}
        return self.out(self.norm(self._read(h, state))), state

    def _read(self, h: Tensor, state: State) -> Tensor:
        for layer, cache in zip(self.layers, state["caches"], strict=True):
            h = layer(h, state["real"][:, None, None], cache=cache)
        return h


def _layers(config: DiffusionPriorConfig) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerBlock(config.width, config.heads, pre_norm=True, gelu="exact") for _ in range(config.depth)
    )
