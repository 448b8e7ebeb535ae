"""CLIP: an image tower and a text tower that meet in one space.

Letters: `B` pairs of image and text, `T` tokens, `D` width of a tower, `J` width of the joint space.
Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.attention import causal_mask
from ditbook.layers.block import TransformerBlock
from ditbook.layers.checks import check_multiple, check_per_sample, check_positive, check_types
from ditbook.layers.patches import PatchEmbed

START = math.log(1 / 0.07)  # of the logarithm of the scale, which is one over the temperature
LIMITS = (0.0, math.log(100))  # between which `clamp_scale` keeps it


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Both towers. The defaults are OpenAI's ViT-B/32.

    Raises:
        ValueError: a size that is not positive, or sizes that do not divide one another.
    """

    size: int = 224  # side of the square image, in pixels
    channels: int = 3  # C
    patch: int = 32
    width: int = 768  # D of the image tower
    depth: int = 12
    heads: int = 12
    vocabulary: int = 49408
    context: int = 77  # tokens of the longest text
    text_width: int = 512  # D of the text tower
    text_depth: int = 12
    text_heads: int = 8
    joint: int = 512  # J

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, *(field.name for field in fields(self)))
        check_multiple("size", self.size, "patch", self.patch)
        check_multiple("width", self.width, "heads", self.heads)
        check_multiple("text_width", self.text_width, "text_heads", self.text_heads)


def _layers(width: int, heads: int, depth: int) -> nn.ModuleList:
    return nn.ModuleList(TransformerBlock(width, heads, pre_norm=True, gelu="quick") for _ in range(depth))


class CLIP(nn.Module):
    """Images and texts → vectors of one space, and the similarity of each image to each text."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        width, text = config.width, config.text_width
        self.patch_embed = PatchEmbed(config.size, config.channels, config.patch, width, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn((config.size // config.patch) ** 2 + 1, width) * width**-0.5)
        self.norm_before, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers = _layers(width, config.heads, config.depth)
        self.project = nn.Linear(width, config.joint, bias=False)
        self.embed = nn.Embedding(config.vocabulary, text)
        self.text_positions = nn.Parameter(torch.randn(config.context, text) * 0.01)
        self.text_layers = _layers(text, config.text_heads, config.text_depth)
        self.text_norm = nn.LayerNorm(text)
        self.text_project = nn.Linear(text, config.joint, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(START))
        self.initialize()

    def initialize(self) -> None:
        """Normals as in OpenAI's code: what is added to the residual sum gets smaller with the depth."""
        nn.init.normal_(self.embed.weight, std=0.02)  # all similarities are then about equal: (8.5)
        for linear in (self.project, self.text_project):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        for layers in (self.layers, self.text_layers):
            for layer in cast("Sequence[Any]", layers):
                width = layer.attention.proj.in_features
                added = width**-0.5 * (2 * len(layers)) ** -0.5
                nn.init.normal_(layer.attention.qkv.weight, std=width**-0.5)
                nn.init.normal_(layer.attention.proj.weight, std=added)
                nn.init.normal_(layer.mlp.fc1.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(layer.mlp.fc2.weight, std=added)

    def clamp_scale(self) -> None:
        """Keep the scale between 1 and 100; to be called after each step of training.

        Clamping the parameter, not the value used in `forward`, leaves its gradient alive, so the scale can come back.

        Source: Radford et al. 2021, section 2.5; the lower limit is that of open_clip.
        """
        with torch.no_grad():
            self.log_scale.clamp_(*LIMITS)

    def encode_image(self, image: Tensor) -> Tensor:
        """Unit vectors of images: (B, C, size, size) → (B, J).

        Raises:
            ValueError: images of another shape, or not of floating-point numbers.
        """
        x = self.patch_embed(image)  # (B, T, D)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1) + self.positions
        x = self.norm_before(x)
        for layer in self.layers:
            x = layer(x)
        return F.normalize(self.project(self.norm_after(x[:, 0])), dim=-1)  # (8.1)

    def encode_text(self, tokens: Tensor, end: Tensor | None = None) -> Tensor:
        """Unit vectors of texts: (B, T) → (B, J), read off at the end token.

        Args:
            tokens: (B, T); what follows the end token changes nothing, because no token sees later ones.
            end: where the end token stands, (B,); by default at the largest number, as in OpenAI's vocabulary.

        Raises:
            ValueError: a text is longer than the context, or not one end for each text.
        """
        length = tokens.shape[1]
        if length > self.config.context:
            raise ValueError(f"texts of {length} tokens are longer than the context of {self.config.context}")
        end = tokens.argmax(dim=1) if end is None else end
        check_per_sample(end, len(tokens), "ends")
        x, mask = self.embed(tokens) + self.text_positions[:length], causal_mask(length, tokens.device)
        for layer in self.text_layers:
            x = layer(x, mask)
        rows = torch.arange(len(x), device=x.device)
        return F.normalize(self.text_project(self.text_norm(x)[rows, end]), dim=-1)  # (8.1)

    def forward(self, image: Tensor, tokens: Tensor, end: Tensor | None = None) -> Tensor:
        """Scaled similarities of every image with every text: logits (B, B), images in rows."""
        return self.log_scale.exp() * self.encode_image(image) @ self.encode_text(tokens, end).T  # (8.2)


def class_vectors(model: CLIP, tokens: Tensor, end: Tensor | None = None) -> Tensor:
    """One unit vector for each class, the mean of those of its prompts: an image is of the class it is closest to.

    Args:
        model: gives the vectors.
        tokens: prompts, (K, P, T): P for each of K classes.
        end: where the end tokens stand, (K, P), as in `CLIP.encode_text`.

    Returns:
        (K, J).

    Source: Radford et al. 2021, section 3.1.4.
    """
    classes = len(tokens)
    vectors = model.encode_text(tokens.flatten(0, 1), None if end is None else end.flatten())
    return F.normalize(rearrange(vectors, "(k p) j -> k p j", k=classes).mean(dim=1), dim=-1)  # (8.7)
