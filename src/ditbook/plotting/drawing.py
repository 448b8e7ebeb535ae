"""Boxes and arrows of the block diagrams in chapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.patches import FancyBboxPatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Fill and edge of a box in a drawing: what flows, what is learned, the condition, what is fixed.
KINDS = {
    "data": ("#dcebf8", "#0072b2"),
    "learned": ("#fdebcb", "#b87400"),
    "told": ("#d5f0e6", "#00735a"),
    "fixed": ("#ededed", "#6b6b6b"),
}


def box(
    ax: Axes, x: float, y: float, text: str, kind: str = "learned", width: float = 1.6, height: float = 0.6
) -> None:
    """Draw a box with its centre at (x, y) and a text inside, in units of the axes.

    Args:
        kind: one of `KINDS`.

    Raises:
        ValueError: no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of box {kind!r}; there are {', '.join(KINDS)}")
    fill, edge = KINDS[kind]
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.1", fc=fill, ec=edge, lw=1.4))
    ax.text(x, y, text, ha="center", va="center", fontsize=10.5, linespacing=1.15)


def arrow(ax: Axes, *points: tuple[float, float]) -> None:
    """Draw a line through the points, with a head at the last one."""
    look: dict[str, Any] = {"color": "#333333", "lw": 1.4}
    *way, end = points
    ax.plot(*zip(*way, strict=True), **look)
    ax.annotate("", end, way[-1], arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **look})
