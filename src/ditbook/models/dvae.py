"""The discrete autoencoder of DALL·E: an image as a small grid of tokens from a learned vocabulary, and back.

Letters: `B` batch, `C H W` image, `K` vocabulary, `D` width of a code, `h w` height and width of the grid of tokens.
Source: Ramesh et al. 2021 (DALL·E), section 2.1, appendix A and the code published with it; van den Oord et al. 2017
for vector quantization.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ditbook import rng
from ditbook.layers.checks import check_multiple, check_positive, check_range, check_types
from ditbook.layers.logit_laplace import from_unit, logit_laplace, to_unit
from ditbook.layers.quantize import VectorQuantizer, gumbel_softmax, one_hot

SLICE = 100  # images that `tokens` and `images` compute at once


@dataclass(frozen=True, kw_only=True)
class DVAEConfig:
    """A discrete autoencoder. The defaults are DALL·E's.

    Raises:
        ValueError: a size or gain that is not positive, or a width that four does not divide.
    """

    channels: int = 3  # C
    vocabulary: int = 8192  # K
    width: int = 256  # of the feature maps at full resolution; each halving of the sides doubles it
    start: int = 128  # width of the decoder's first map
    groups: int = 4  # between two groups the sides are halved
    blocks: int = 2  # of a group
    gain: float | None = None  # of a block's convolutions; None: the published one over the number of blocks, squared
    code_width: int | None = None  # D: with it the tokens are the nearest codes (vector quantization), else the logits'

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "channels", "vocabulary", "width", "start", "groups", "blocks", "code_width")
        check_multiple("width", self.width, "the narrowing of a block:", 4)
        check_range(self, "gain", above=True)

    @property
    def factor(self) -> int:
        """f, the side of an image over that of its grid of tokens."""
        return 2 ** (self.groups - 1)

    @property
    def widths(self) -> list[int]:
        """Of the groups of the encoder, from the first to the last."""
        return [self.width * 2**n for n in range(self.groups)]


class Conv(nn.Conv2d):
    """A convolution that keeps height and width, with weights of standard deviation 1/√(numbers that it sums)."""

    def __init__(self, width: int, out: int, kernel: int) -> None:
        super().__init__(width, out, kernel, padding=kernel // 2)
        nn.init.normal_(self.weight, std=1 / math.sqrt(width * kernel**2))
        nn.init.zeros_(cast("Tensor", self.bias))


class Block(nn.Module):
    """x + gain · four convolutions, each after a ReLU, three of them with a quarter of the width.

    Args:
        width: channels of the input.
        out: channels of the output, a multiple of four.
        kernels: sides of the four convolutions.
        gain: of the sum.
    """

    def __init__(self, width: int, out: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        self.gain = gain
        widths = (width, *[out // 4] * 3, out)
        self.shortcut = Conv(width, out, 1) if width != out else nn.Identity()
        self.convs = nn.ModuleList(map(Conv, widths[:-1], widths[1:], kernels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → (B, out, h, w)."""
        h = x
        for conv in self.convs:
            h = conv(h.relu())
        return self.shortcut(x) + self.gain * h


def _groups(width: int, widths: Sequence[int], config: DVAEConfig, kernels: Sequence[int]) -> nn.ModuleList:
    """A group of blocks for each width."""
    gain = 1 / (config.groups * config.blocks) ** 2 if config.gain is None else config.gain
    groups = []
    for before, after in zip((width, *widths), widths, strict=False):
        inputs = (before, *[after] * (config.blocks - 1))
        groups.append(nn.Sequential(*(Block(entered, after, kernels, gain) for entered in inputs)))
    return nn.ModuleList(groups)


class Encoder(nn.Module):
    """Images (B, C, H, W) → `out` numbers for each place of the grid, (B, out, h, w)."""

    def __init__(self, config: DVAEConfig, out: int) -> None:
        super().__init__()
        self.conv_in = Conv(config.channels, config.width, 7)
        self.groups = _groups(config.width, config.widths, config, kernels=(3, 3, 3, 1))
        self.conv_out = Conv(config.widths[-1], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out, h, w)."""
        x = self.groups[0](self.conv_in(x))
        for group in self.groups[1:]:
            x = group(nn.functional.max_pool2d(x, 2))
        return self.conv_out(x.relu())


class Decoder(nn.Module):
    """A grid of `entered` numbers at each place (B, entered, h, w) → two numbers for each of an image, (B, 2·C, H, W).

    For tokens, these are weights of the codes: the first convolution, 1×1, is the codebook.
    """

    def __init__(self, config: DVAEConfig, entered: int) -> None:
        super().__init__()
        self.conv_in = Conv(entered, config.start, 1)
        self.groups = _groups(config.start, config.widths[::-1], config, kernels=(1, 3, 3, 3))
        self.conv_out = Conv(config.width, 2 * config.channels, 1)

    def forward(self, weights: Tensor) -> Tensor:
        """(B, entered, h, w) → (B, 2·C, H, W)."""
        x = self.groups[0](self.conv_in(weights))
        for group in self.groups[1:]:
            x = group(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(x.relu())


class DVAE(nn.Module):
    """Images ↔ tokens."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        width = config.code_width
        self.quantizer = None if width is None else VectorQuantizer(config.vocabulary, width)
        self.encoder = Encoder(config, config.vocabulary if width is None else width)
        self.decoder = Decoder(config, config.vocabulary if width is None else width)

    def vectors(self, x: Tensor) -> Tensor:
        """What the encoder gives: logits of the codes, or vectors to quantize. Arguments and errors as for `encode`.

        Images enter as values from 0.1 to 0.9, as in the published code.
        """
        rng.check_floating(x)
        f = self.config.factor
        if x.ndim != 4 or x.shape[1] != self.config.channels or x.shape[2] % f or x.shape[3] % f:
            raise ValueError(
                f"images of shape {tuple(x.shape)}; this model takes (batch, {self.config.channels}, H, W), both sides "
                f"divisible by {f}"
            )
        return self.encoder(to_unit(x))

    def encode(self, x: Tensor) -> Tensor:
        """Logits of the codes: (B, C, H, W) in [−1, 1] → (B, K, H/f, W/f). The largest is the token.

        With vector quantization, minus the squared distances to the codes.

        Raises:
            ValueError: images of whole numbers, wrong channels, or sides that are not divisible by the factor f.
        """
        z = self.vectors(x)
        return z if self.quantizer is None else self.quantizer.similarities(z)

    def decode(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the codes (B, K, h, w), or quantized vectors (B, D, h, w) → μ and ln b, each (B, C, f·h, f·w)."""
        mean, log_scale = self.decoder(weights).chunk(2, dim=1)
        return mean, log_scale

    def relax(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """A relaxed sample of the codes: logits (B, K, h, w) → weights (B, K, h, w), see `gumbel_softmax`."""
        return gumbel_softmax(logits, temperature, generator)

    def nats(self, x: Tensor, weights: Tensor) -> Tensor:
        """Minus the logarithm of the likelihood of each number of images, given what `decode` takes: (B, C, H, W).

        Raises:
            ValueError: images of whole numbers.
        """
        rng.check_floating(x)
        return logit_laplace(to_unit(x), *self.decode(weights))

    @torch.no_grad()
    def tokens(self, x: Tensor) -> Tensor:
        """Any number of images (N, C, H, W) → tokens in reading order, (N, h·w)."""
        return torch.cat([self.encode(part).argmax(dim=1).flatten(1) for part in x.split(SLICE)])

    @torch.no_grad()
    def images(self, tokens: Tensor, width: int | None = None) -> Tensor:
        """Tokens in reading order (N, h·w) → images (N, C, f·h, f·w) in [−1, 1], the medians of the likelihood.

        Args:
            tokens: any number of grids.
            width: w; without it the grid is square.

        Raises:
            ValueError: the tokens do not fill a grid of this width.
        """
        width = math.isqrt(tokens.shape[1]) if width is None else width
        if tokens.shape[1] % width:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid {width} wide")
        grids = tokens.unflatten(1, (-1, width))  # (N, h, w)
        means = [self.decode(self.codes(part))[0] for part in grids.split(SLICE)]
        return from_unit(torch.cat(means).sigmoid())

    def codes(self, tokens: Tensor) -> Tensor:
        """What the decoder takes for tokens (B, h, w): one-hot weights (B, K, h, w), or vectors (B, D, h, w)."""
        if self.quantizer is None:
            return one_hot(tokens, self.config.vocabulary)
        return self.quantizer.lookup(tokens)
