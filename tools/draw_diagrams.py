"""Draw the architecture figures, the maps of the parts, and the book's sign: book/static/**/*.svg."""

from pathlib import Path

import diffusion_figures
import sequence_figures
import text_image_figures
from chapter_maps import MAPS, chapter_map
from diagram import KINDS

FOLDER = Path(__file__).parents[1] / "book/static"
FIGURES = {**sequence_figures.FIGURES, **text_image_figures.FIGURES, **diffusion_figures.FIGURES}
PATCHES = ((6, 6, 0.35), (17, 6, 0.6), (6, 17, 0.8), (17, 17, 1.0))  # left, top, opacity: from noise to picture


def sign(words: str = "") -> str:
    """Four patches that clear up; with words beside them the logo, without the icon."""
    squares = "".join(f'<rect x="{x}" y="{y}" width="9" height="9" opacity="{o:g}"/>' for x, y, o in PATCHES)
    beside = (
        f'<text x="42" y="24" font-family="DejaVu Sans, Verdana, sans-serif" font-size="22" font-weight="bold" '
        f'fill="#3b8fc4">{words}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {148 if words else 32} 32" role="img" '
        f'aria-label="ditbook"><rect width="32" height="32" rx="6" fill="{KINDS["data"][1]}"/>'
        f'<g fill="#fff">{squares}</g>{beside if words else ""}</svg>\n'
    )


def drawings() -> dict[str, str]:
    """Text of every file, by its path below book/static."""
    files = {f"figures/{name}.svg": draw().svg() for name, draw in FIGURES.items()}
    for part, (boxes, arrows) in enumerate(MAPS, 1):
        files[f"figures/map{part}.svg"] = chapter_map(part, boxes, arrows).svg()
    return {**files, "logo.svg": sign("ditbook"), "favicon.svg": sign()}


if __name__ == "__main__":
    for name, text in drawings().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
