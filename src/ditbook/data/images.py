"""One image, made upright, of one mode and of one size. Letters: `H W` height and width in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = ("L", "RGB")  # what an image can become: grey, or red, green and blue
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")  # modes whose range is known
ORIENTATION = 0x0112  # the EXIF tag


def prepare(image: Image, size: int, mode: str) -> tuple[Image, list[str]]:
    """Make an image upright, of one mode, and square, without stretching it.

    In this order: it is turned as its EXIF orientation says; converted, see `to_mode`; and the largest square in its
    middle is resized with PIL's Lanczos filter, which is antialiased. So the shorter side becomes `size`, and the ends
    of the longer one are cut off. An image that is so already keeps its pixels.

    Returns:
        The image, and what was done, of "turned", "converted from …", "reduced" or "enlarged", and "cropped".

    Raises:
        ValueError: a mode whose range is not known (see `to_mode`).
    """
    from PIL import Image, ImageOps

    changes = ["turned"] if image.getexif().get(ORIENTATION, 1) != 1 else []
    transparency = " with transparency" if "transparency" in image.info else ""
    if image.mode != mode or transparency:
        changes.append(f"converted from {image.mode}{transparency}")
    shorter, longer = sorted(image.size)
    if shorter != size:
        changes.append("reduced" if shorter > size else "enlarged")
    if shorter != longer:
        changes.append("cropped")
    image = to_mode(ImageOps.exif_transpose(image), mode)
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS), changes


def to_mode(image: Image, mode: str) -> Image:
    """Convert an image of any mode to "L" or "RGB".

    What is transparent shows white. 16-bit grey is scaled to 8 bits, where PIL would clip it. CMYK is converted without
    its color profile. Of an animation this is the first image.

    Raises:
        ValueError: floating-point or 32-bit pixels, whose range is not known, or a mode that PIL cannot convert.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.mode not in EIGHT_BITS:
        raise ValueError(f"the range of mode {image.mode} is not known; convert the image to 8 bits first")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _from_16_bits(image: Image) -> Image:
    """Scale grey values of 0 to 65,535 to 0 to 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)  # (H, W)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(f"pixels from {values.min()} to {values.max()} are not of 16 bits; convert the image first")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
