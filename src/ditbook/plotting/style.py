"""The style of all figures, and how a figure is shown: opaque background, colors for every color vision, alt text.

One point of text is one pixel of the page, because figures are stored at 144 dots per inch and shown at half their
size, which keeps them sharp on dense screens.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from zlib import Z_DEFAULT_STRATEGY

import matplotlib.style
import PIL.Image
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, "Color Universal Design", 2008: eight colours that readers with any colour vision can tell apart.
COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",
}
DPI = 144  # stored dots per inch; a page shows 72, so half of them
SHORTEST_ALT = 10  # characters

STYLE: dict[str, Any] = {
    "figure.figsize": (8.0, 4.0),
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "axes.facecolor": "white",
    "axes.prop_cycle": cycler(color=list(COLORS.values())),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.0,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "legend.frameon": False,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Make matplotlib draw in the style of the book from here on."""
    matplotlib.style.use(STYLE)


def show(fig: Figure, alt: str) -> None:
    """Display a figure as a PNG with alternative text, at half its stored size, and close it.

    The PNG holds no date and no version, so that running the cell again stores the same bytes. It holds no opacity
    either, which makes it smaller.

    Raises:
        ValueError: the alternative text has fewer than 10 characters.
    """
    from IPython.display import Image, display
    from matplotlib import pyplot as plt

    alt = checked_alt(alt)
    drawn, stored = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, facecolor="white")
    plt.close(fig)
    PIL.Image.open(drawn).convert("RGB").save(stored, format="PNG", optimize=True, compress_type=Z_DEFAULT_STRATEGY)
    png = stored.getvalue()
    width = int.from_bytes(png[16:20], "big")  # where a PNG states its width
    image = Image(data=png, format="png", width=width // 2)
    display(image, metadata={"image/png": {"alt": alt}})  # Colab's IPython 7 has no Image(alt=…)


def log_ticks(ax: Axes, x: Sequence[float] | None = None, y: Sequence[float] | None = None) -> None:
    """Make an axis logarithmic with ticks at the given values alone.

    They are written as plain numbers; if the smallest is below 0.001 and all are powers of ten, as powers.

    Args:
        ax: the axes.
        x: ticks of the horizontal axis; None leaves it as it is.
        y: ticks of the vertical axis; None leaves it as it is.
    """
    for name, values in (("x", x), ("y", y)):
        if values is not None:
            ax.set(**{f"{name}scale": "log"})
            axis = getattr(ax, f"{name}axis")
            axis.set_ticks(list(values), _written(values))
            axis.set_minor_locator(NullLocator())


def _written(values: Sequence[float]) -> list[str]:
    exponents = [round(math.log10(value)) for value in values]
    if min(values) < 1e-3 and all(math.isclose(value, 10.0**n) for value, n in zip(values, exponents, strict=True)):
        return [f"$10^{{{n}}}$" for n in exponents]
    return [f"{value:,g}" for value in values]


def checked_alt(alt: str) -> str:
    """The alternative text, or a ValueError if it is too short to say anything."""
    if len(alt.strip()) < SHORTEST_ALT:
        raise ValueError(
            f"the alternative text {alt!r} must say what the figure shows, in {SHORTEST_ALT} characters or more"
        )
    return alt.strip()
