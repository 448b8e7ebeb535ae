"""Boxes, words and arrows as SVG.

Colours mean the same in all drawings: blue what flows, orange what is learned, green what a model is told, grey what
is fixed.
"""

from html import escape

from ditbook.plotting import KINDS

HEAD = (
    '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 10 5 0 10z" fill="#333"/></marker>'
)


class Diagram:
    """A drawing of `width` × `height` with a title and a description for those who do not see it."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.size, self.title, self.description, self.parts = (width, height), title, description, [""]

    def text(self, x: float, y: float, words: str, size: int = 15, anchor: str = "middle", weight: str = "400") -> None:
        """Lines, separated by newlines, centred on `y`."""
        lines = words.split("\n")
        for k, line in enumerate(lines):
            at = y + (k - (len(lines) - 1) / 2) * 1.25 * size + 0.35 * size
            style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
            self.parts.append(f'<text x="{x:g}" y="{at:g}" {style}>{escape(line)}</text>')

    def box(self, x: float, y: float, width: float, height: float, words: str, kind: str, size: int = 15) -> None:
        """A rounded box with its upper left corner at (x, y)."""
        fill, stroke = KINDS[kind]
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self.parts.append(f'<rect {place} rx="8" fill="{fill}" stroke="{stroke}" stroke-width="1.6"/>')
        self.text(x + width / 2, y + height / 2, words, size)

    def dot(self, x: float, y: float, sign: str, radius: float = 13) -> None:
        """A fixed operation in a circle."""
        fill, stroke = KINDS["fixed"]
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}" stroke="{stroke}"/>')
        self.text(x, y, sign, 15)

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points, with a head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="#333" stroke-width="1.6" marker-end="url(#head)"/>'
        )

    def svg(self) -> str:
        """The file's text."""
        width, height = self.size
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        return "\n".join(
            [
                f'{opening} aria-labelledby="t d" font-family="sans-serif" fill="#1a1a1a">',
                f'<title id="t">{escape(self.title)}</title><desc id="d">{escape(self.description)}</desc>',
                f"<defs>{HEAD}</defs>",
                f'<rect width="{width}" height="{height}" rx="10" fill="#fdfdfb"/>',
                *self.parts[1:],
                "</svg>\n",
            ]
        )
