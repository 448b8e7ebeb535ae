"""One style for all figures and tables of the book.

A figure cell ends in `show(fig, alt="…")`, a table cell in `table({…})`.
"""

from ditbook.plotting.drawing import KINDS, arrow, box
from ditbook.plotting.images import GAP, PAGE, filmstrip, grid, slider
from ditbook.plotting.style import COLORS, DPI, SHORTEST_ALT, STYLE, log_ticks, show, use_style
from ditbook.plotting.tables import table

__all__ = [
    "COLORS", "DPI", "GAP", "KINDS", "PAGE", "SHORTEST_ALT", "STYLE",
    "arrow", "box", "filmstrip", "grid", "log_ticks", "show", "slider", "table", "use_style",
]  # fmt: skip
