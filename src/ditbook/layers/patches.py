"""An image as a sequence of patches, and back.

Letters: `B` batch, `C` channels, `p` side of a patch, `h w` patches per column and row, `T = h·w` tokens, `D` width.
"""

from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.checks import check_images


def patchify(x: Tensor, patch: int) -> Tensor:
    """Cut an image into square patches: (B, C, h·p, w·p) → (B, h·w, p·p·C).

    Tokens stand in reading order; inside a token the order is row, column, channel.

    Raises:
        ValueError: height or width is not divisible by `patch`.

    Source: Peebles & Xie 2023, section 3.2, "Patchify".
    """
    height, width = x.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(
            f"an image of {height}×{width} pixels cannot be cut into {patch}×{patch} patches; "
            f"both sides must be multiples of {patch}"
        )
    return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)  # (16.1)


def unpatchify(tokens: Tensor, patch: int, channels: int) -> Tensor:
    """Put the patches of a square image back: (B, T, p·p·C) → (B, C, √T·p, √T·p).

    Raises:
        ValueError: the tokens do not form a square grid, or a token does not hold p·p·C numbers.
    """
    side = round(tokens.shape[1] ** 0.5)
    if side * side != tokens.shape[1]:
        raise ValueError(f"{tokens.shape[1]} tokens do not form a square grid")
    if tokens.shape[2] != patch * patch * channels:
        raise ValueError(
            f"a token holds {tokens.shape[2]} numbers, but {channels} channels of {patch}×{patch} pixels "
            f"need {patch * patch * channels}"
        )
    return rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=side, p=patch, q=patch, c=channels)


class PatchEmbed(nn.Linear):
    """One linear map of each patch of a square image: (B, C, size, size) → (B, T, D).

    Args:
        size: side of the image in pixels, a multiple of `patch`.
        channels: C.
        patch: p.
        width: D.
        bias: whether the map adds a bias.

    Source: Dosovitskiy et al. 2021, section 3.1.
    """

    def __init__(self, size: int, channels: int, patch: int, width: int, bias: bool = True) -> None:
        super().__init__(patch**2 * channels, width, bias)
        self.size, self.channels, self.patch = size, channels, patch

    def forward(self, x: Tensor) -> Tensor:
        """Embed images (B, C, size, size) as tokens (B, T, D).

        Raises:
            ValueError: images of another shape, or not of floating-point numbers.
        """
        check_images(x, self.channels, self.size)
        return super().forward(patchify(x, self.patch))
