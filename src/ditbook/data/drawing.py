"""Things drawn by signed distance: how far a pixel is from the outline says how much of it the thing covers.

The distance is computed in float64 from sums, products, quotients and square roots, which every machine rounds alike;
all that follows is in whole numbers. So the same layouts give the same bytes everywhere.
Letters: `N` layouts, `S` side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ditbook.data.scene import RADII, SHAPES, SIDE, SIZES, Layout

RGB = {
    "red": (225, 25, 45),
    "green": (25, 175, 65),
    "blue": (45, 85, 255),
    "yellow": (255, 225, 40),
    "orange": (255, 130, 0),
    "purple": (170, 60, 220),
    "white": (255, 255, 255),
    "grey": (125, 125, 125),
}
# Corners in units of the radius, x to the right and y down. The circle and the moon are made of discs instead.
OUTLINES = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -0.95), (1, 0.85), (-1, 0.85)),
    "diamond": ((0, -1), (0.75, 0), (0, 1), (-0.75, 0)),
    "star": (
        *((0, -1), (0.27, -0.33), (1, -0.28), (0.43, 0.17), (0.62, 0.9)),
        *((0, 0.5), (-0.62, 0.9), (-0.43, 0.17), (-1, -0.28), (-0.27, -0.33)),
    ),
    "cross": (
        *((-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)),
        *((0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)),
    ),
    "arrow": ((-1, -0.3), (0, -0.3), (0, -0.95), (1, 0), (0, 0.95), (0, 0.3), (-1, 0.3)),
}


def signed_distance(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from points to the outline of a shape of radius 1 around the origin, negative inside.

    Of the moon, a disc with a bite taken out, it is a lower bound near the two tips, and has the right sign everywhere.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - 0.95
    if shape == "moon":
        bite = np.sqrt((x - 0.55) * (x - 0.55) + (y + 0.15) * (y + 0.15)) - 0.8
        return np.maximum(np.sqrt(x * x + y * y) - 1, -bite)
    nearest, inside = np.full(x.shape, np.inf), np.zeros(x.shape, dtype=bool)
    corners = OUTLINES[shape]
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)  # the nearest point of the edge
        dx, dy = px - along * ex, py - along * ey
        nearest = np.minimum(nearest, dx * dx + dy * dy)
        if ey:  # where a ray to the right crosses the edge, it goes in or out
            inside ^= ((ay > y) != (by > y)) & (px < py / ey * ex)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def opacity(size: str, shape: str, side: int) -> NDArray[np.float64]:
    """How much of each pixel a thing covers, from 0 to 255, around the middle of an image twice as large: (2·S, 2·S).

    It falls over one pixel, from half a pixel inside the outline to half a pixel outside.
    """
    scale = RADII[size] * side / SIDE  # pixels in a radius
    at = (np.arange(2 * side) + 0.5 - side) / scale
    x, y = np.meshgrid(at, at)
    return np.clip(0.5 - signed_distance(shape, x, y) * scale, 0, 1) * 255


@lru_cache
def _stencils(side: int) -> NDArray[np.uint8]:
    """The opacities of every size and shape in whole numbers: (sizes, shapes, 2·S, 2·S).

    0.49 instead of 0.5, because some pixels are covered by half: now none is near the edge between two numbers.
    """
    return np.array([[opacity(size, shape, side) + 0.49 for shape in SHAPES] for size in SIZES]).astype(np.uint8)


def render(layouts: Sequence[Layout], side: int = SIDE) -> NDArray[np.uint8]:
    """Draw layouts on black: (N, S, S, 3), red, green and blue.

    Args:
        layouts: what to draw.
        side: of each image in pixels, a multiple of 32.

    Raises:
        ValueError: the side is not a multiple of 32.
    """
    if side < SIDE or side % SIDE:
        raise ValueError(f"the side must be a multiple of {SIDE}, not {side}")
    scale = side // SIDE
    windows = np.lib.stride_tricks.sliding_window_view(_stencils(side), (side, side), axis=(2, 3))
    images = np.zeros((len(layouts), side, side, 3), dtype=np.uint8)
    rows = [  # one for each thing: its image, its stencil, the window that has it in its place, and its colour
        (n, SIZES.index(it.size), SHAPES.index(it.shape), side - y * scale, side - x * scale, *RGB[it.colour])
        for n, layout in enumerate(layouts)
        for it, (x, y) in zip(layout.scene.things, layout.places, strict=True)
    ]
    for start in range(0, len(rows), 1024):
        n, size, shape, down, right, *rgb = np.array(rows[start : start + 1024]).T
        cover = windows[size, shape, down, right].astype(np.uint16)  # (things, S, S)
        for channel, value in enumerate(rgb):
            shade = (cover * value[:, None, None].astype(np.uint16) + 127) // 255
            np.add.at(images[..., channel], n, shade.astype(np.uint8))  # no two things cover one pixel
    return images
