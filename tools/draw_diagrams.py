"""Draw the architecture figures, the maps of the parts, and the book's sign: book/static/**/*.svg.

Colours mean the same in all of them: blue what flows, orange what is learned, green what a model is told, grey what
is fixed.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path

from ditbook import plotting

FOLDER = Path(__file__).parents[1] / "book/static"
KINDS = {**plotting.KINDS, "planned": ("#ffffff", "#6b6b6b")}  # fill, edge
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
        dash = ' stroke-dasharray="6 4"' if kind == "planned" else ""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self.parts.append(f'<rect {place} rx="8" fill="{fill}" stroke="{stroke}" stroke-width="1.6"{dash}/>')
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


def rnn_cells() -> Diagram:
    d = Diagram(760, 640, "Three recurrent cells", "A plain recurrent cell, an LSTM cell and a GRU cell.")
    d.text(20, 26, "plain RNN", 17, "start", "600")
    d.box(300, 50, 130, 50, "W, tanh", "learned")
    d.box(20, 55, 90, 40, "h, before", "data")
    d.box(320, 130, 90, 40, "input x", "data")
    d.box(650, 55, 90, 40, "h, after", "data")
    d.arrow((110, 75), (300, 75))
    d.arrow((365, 130), (365, 100))
    d.arrow((430, 75), (650, 75))
    d.text(20, 204, "LSTM", 17, "start", "600")
    d.box(20, 225, 90, 40, "c, before", "data")
    d.box(20, 355, 90, 40, "h, before", "data")
    d.box(650, 225, 90, 40, "c, after", "data")
    d.box(650, 355, 90, 40, "h, after", "data")
    for x, words in ((150, "forget σ"), (270, "input σ"), (390, "new tanh"), (510, "output σ")):
        d.box(x, 345, 100, 60, words, "learned")
    d.arrow((110, 375), (150, 375))
    d.text(300, 425, "all four read h and x", 14)
    d.dot(200, 245, "×")
    d.dot(330, 285, "×")
    d.dot(440, 245, "+")
    d.dot(560, 316, "×")
    d.box(535, 266, 50, 24, "tanh", "fixed", 13)
    d.arrow((110, 245), (187, 245))
    d.arrow((213, 245), (427, 245))
    d.arrow((453, 245), (650, 245))
    d.arrow((560, 245), (560, 266))
    d.arrow((200, 345), (200, 258))
    d.arrow((320, 345), (325, 298))
    d.arrow((430, 345), (430, 320), (350, 290))
    d.arrow((343, 283), (430, 255))
    d.arrow((560, 290), (560, 303))
    d.arrow((560, 345), (560, 329))
    d.arrow((573, 316), (630, 316), (630, 375), (650, 375))
    d.text(20, 464, "GRU", 17, "start", "600")
    d.box(20, 485, 90, 40, "h, before", "data")
    d.box(650, 485, 90, 40, "h, after", "data")
    for x, words in ((150, "reset σ"), (290, "new tanh"), (470, "update z, σ")):
        d.box(x, 570, 110, 50, words, "learned")
    d.dot(345, 535, "×")
    d.dot(525, 505, "+")
    d.arrow((110, 505), (512, 505))
    d.arrow((345, 570), (345, 548))
    d.arrow((358, 533), (513, 511))
    d.arrow((260, 595), (290, 595))
    d.arrow((525, 570), (525, 518))
    d.arrow((538, 505), (650, 505))
    d.text(440, 488, "z · old", 14)
    d.text(425, 545, "(1 − z) · new", 14)
    return d


def attention() -> Diagram:
    d = Diagram(760, 300, "Attention", "Queries meet keys; a softmax makes weights; the weights mix the values.")
    for y, words in ((30, "queries Q"), (120, "keys K"), (220, "values V")):
        d.box(20, y, 110, 46, words, "data")
    d.box(190, 70, 130, 50, "Q Kᵀ / √E", "fixed")
    d.box(370, 70, 110, 50, "softmax", "fixed")
    d.box(540, 130, 90, 50, "mix", "fixed")
    d.box(665, 130, 80, 50, "answer", "data")
    d.arrow((130, 53), (190, 85))
    d.arrow((130, 143), (190, 105))
    d.arrow((320, 95), (370, 95))
    d.arrow((480, 95), (585, 95), (585, 130))
    d.arrow((130, 243), (585, 243), (585, 180))
    d.arrow((630, 155), (665, 155))
    d.text(425, 140, "each row adds to one", 14)
    d.text(420, 275, "several heads do this side by side, each in its own part of the width", 14)
    return d


def transformer() -> Diagram:
    d = Diagram(760, 520, "The Transformer", "Encoder and decoder; the decoder looks at itself and at the encoder.")
    for x, name, parts in (
        (60, "encoder, L times", ["self-attention", "MLP"]),
        (440, "decoder, L times", ["masked self-attention", "cross-attention", "MLP"]),
    ):
        top = 400 - 90 * len(parts)
        height = 90 * len(parts) + 10
        d.parts.append(
            f'<rect x="{x - 20}" y="{top}" width="300" height="{height}" rx="10" fill="none" stroke="#999"/>'
        )
        d.text(x + 278, top - 14, name, 15, "end", "600")
        for k, words in enumerate(parts):
            y = 340 - 90 * k
            d.box(x + 10, y, 200, 44, words, "learned")
            d.dot(x + 110, y - 16, "+", 11)
            d.arrow((x + 110, y + 62), (x + 245, y + 62), (x + 245, y - 16), (x + 121, y - 16))
            d.arrow((x + 110, y + 74 if k else 440), (x + 110, y + 44))
    d.box(70, 440, 200, 50, "source words\n+ positions", "data", 14)
    d.box(450, 440, 200, 50, "words written so far\n+ positions", "data", 14)
    d.box(450, 20, 200, 44, "next word", "data")
    d.arrow((550, 133), (550, 64))
    d.arrow((170, 233), (170, 160), (395, 160), (395, 272), (450, 272))
    d.text(285, 146, "what was read", 14)
    d.text(380, 508, "a norm stands before each sublayer; the lines on the right of each are residual connections", 14)
    return d


def vit() -> Diagram:
    d = Diagram(
        760, 260, "Vision Transformer", "An image becomes patches, tokens, an encoded class token, and a class."
    )
    for row in range(3):
        for column in range(3):
            d.box(20 + 34 * column, 60 + 34 * row, 30, 30, "", "data")
    d.text(70, 190, "patches", 14)
    d.box(165, 80, 110, 60, "linear map", "learned")
    d.box(320, 30, 100, 36, "class token", "learned", 14)
    d.box(320, 160, 100, 36, "positions", "learned", 14)
    d.dot(370, 110, "+")
    d.box(470, 70, 120, 80, "Transformer\nencoder", "learned")
    d.box(640, 85, 100, 50, "class", "data")
    d.arrow((124, 110), (165, 110))
    d.arrow((275, 110), (357, 110))
    d.arrow((370, 66), (370, 97))
    d.arrow((370, 160), (370, 123))
    d.arrow((383, 110), (470, 110))
    d.arrow((590, 110), (640, 110))
    d.text(380, 232, "T = (I / p)² patches and one class token; the class is read from the latter", 14)
    return d


def clip() -> Diagram:
    d = Diagram(
        760, 340, "CLIP", "Pictures and texts become vectors; the table of their products is bright on the diagonal."
    )
    d.box(20, 130, 110, 50, "pictures", "data")
    d.box(180, 120, 130, 70, "image\nencoder", "learned")
    d.box(400, 20, 90, 40, "texts", "data")
    d.box(540, 15, 150, 50, "text encoder", "learned")
    d.arrow((130, 155), (180, 155))
    d.arrow((490, 40), (540, 40))
    for row in range(4):
        for column in range(4):
            kind = "learned" if row == column else "fixed"
            d.box(400 + 80 * column, 110 + 50 * row, 74, 44, f"u{row + 1} · v{column + 1}", kind, 14)
    d.arrow((310, 155), (350, 155), (350, 207), (396, 207))
    d.arrow((615, 65), (615, 106))
    d.text(190, 255, "cosines, times a learned scale;\nthe diagonal is right,\nall else is wrong", 14)
    return d


def diffusion_chain() -> Diagram:
    d = Diagram(760, 220, "The diffusion chain", "A fixed process adds noise step by step; a learned one goes back.")
    for x, words in ((20, "x₀"), (200, "x₁"), (430, "xₜ"), (650, "xᴛ")):
        d.box(x, 85, 90, 50, words, "data", 17)
    for a, b in ((110, 200), (290, 430), (520, 650)):
        d.arrow((a + 4, 98), (b - 4, 98))
        d.arrow((b - 4, 122), (a + 4, 122))
    d.text(360, 90, "…", 17)
    d.text(585, 90, "…", 17)
    d.box(255, 20, 250, 40, "q: add a little noise (fixed)", "fixed")
    d.box(255, 160, 250, 40, "p: take it away again (learned)", "learned")
    d.text(65, 160, "picture", 14)
    d.text(695, 160, "noise", 14)
    return d


def unet() -> Diagram:
    d = Diagram(760, 380, "U-Net", "Down to coarse resolution, up again, with connections across at each level.")
    for k, (words, y) in enumerate((("32 × 32", 60), ("16 × 16", 150), ("8 × 8", 240))):
        d.box(110 + 70 * k, y, 120, 50, words, "learned")
        d.box(530 - 70 * k, y, 120, 50, words, "learned")
        d.arrow((230 + 70 * k, y + 25), (530 - 70 * k, y + 25))
        if k:
            d.arrow((140 + 70 * k, y - 40), (140 + 70 * k, y))
            d.arrow((620 - 70 * k, y), (620 - 70 * k, y - 40))
    d.box(320, 315, 120, 46, "middle", "learned")
    d.arrow((290, 290), (290, 338), (320, 338))
    d.arrow((440, 338), (470, 338), (470, 290))
    d.box(15, 62, 70, 46, "xₜ", "data")
    d.box(675, 62, 70, 46, "ε", "data")
    d.arrow((85, 85), (110, 85))
    d.arrow((650, 85), (675, 85))
    d.box(15, 300, 160, 46, "timestep, to all", "told")
    d.text(380, 70, "features are handed across", 14)
    d.text(150, 225, "down", 14)
    d.text(620, 225, "up", 14)
    return d


def latent_diffusion() -> Diagram:
    d = Diagram(
        760, 300, "Latent diffusion", "An encoder shrinks pictures; diffusion works on latents; a decoder paints."
    )
    d.box(20, 50, 100, 50, "picture x", "data")
    d.box(165, 50, 110, 50, "encoder", "learned")
    d.box(320, 50, 90, 50, "latent z", "data")
    d.box(455, 50, 110, 50, "add noise", "fixed")
    d.box(620, 50, 110, 50, "noisy zₜ", "data")
    d.box(500, 180, 230, 60, "Diffusion Transformer,\nstep after step", "learned")
    d.box(345, 185, 90, 50, "z₀ / s", "data")
    d.box(180, 185, 110, 50, "decoder", "learned")
    d.box(20, 185, 110, 50, "painted", "data")
    d.box(500, 258, 230, 32, "timestep, class or text", "told", 14)
    for a, b in ((120, 165), (275, 320), (410, 455), (565, 620)):
        d.arrow((a, 75), (b, 75))
    d.arrow((675, 100), (675, 180))
    for a, b in ((500, 435), (345, 290), (180, 130)):
        d.arrow((a, 210), (b, 210))
    d.arrow((615, 258), (615, 240))
    d.text(220, 122, "trained once, then fixed", 14)
    return d


def dit() -> Diagram:
    d = Diagram(
        760,
        330,
        "Diffusion Transformer",
        "A noisy latent becomes tokens, passes blocks, and becomes noise and variance.",
    )
    d.box(15, 70, 90, 60, "noisy\nlatent", "data")
    d.box(140, 70, 100, 60, "patchify,\n+ positions", "learned", 14)
    for k in range(3):
        d.box(286 + 8 * k, 54 + 8 * k, 150, 70, "DiT block\nN times", "learned")
    d.box(490, 70, 100, 60, "final layer", "learned")
    d.box(625, 35, 120, 46, "noise ε", "data")
    d.box(625, 120, 120, 46, "variance v", "data")
    d.arrow((105, 100), (140, 100))
    d.arrow((240, 100), (286, 100))
    d.arrow((452, 100), (490, 100))
    d.arrow((590, 90), (625, 60))
    d.arrow((590, 110), (625, 140))
    d.box(60, 200, 110, 46, "timestep t", "told")
    d.box(60, 265, 110, 46, "class y", "told")
    d.dot(250, 255, "+")
    d.arrow((170, 223), (239, 249))
    d.arrow((170, 288), (239, 262))
    d.arrow((263, 255), (370, 255), (370, 142))
    d.arrow((370, 255), (540, 255), (540, 130))
    d.text(560, 285, "the sum sets shift, scale and gate of each block", 14)
    return d


def dit_blocks() -> Diagram:
    d = Diagram(760, 470, "Four DiT blocks", "In-context, cross-attention, adaLN and adaLN-Zero.")
    designs = {
        "in-context": ["norm", "attention", "norm", "MLP"],
        "cross-attention": ["norm", "attention", "norm", "cross-attention", "norm", "MLP"],
        "adaLN": ["shift, scale", "attention", "shift, scale", "MLP"],
        "adaLN-Zero": ["shift, scale", "attention", "gate, from 0", "shift, scale", "MLP", "gate, from 0"],
    }
    for k, (name, parts) in enumerate(designs.items()):
        x = 20 + 185 * k
        d.text(x + 80, 26, name, 15, weight="600")
        if name == "in-context":
            d.box(x, 410, 75, 40, "tokens", "data", 14)
            d.box(x + 85, 410, 75, 40, "t, y", "told", 14)
            d.arrow((x + 122, 410), (x + 110, 390))
            d.arrow((x + 38, 410), (x + 60, 390))
        else:
            d.box(x + 25, 410, 110, 40, "tokens", "data", 14)
            d.arrow((x + 80, 410), (x + 80, 390))
        for j, part in enumerate(parts):
            y = 350 - 58 * j
            kind = "told" if part in ("shift, scale", "gate, from 0", "cross-attention") else "learned"
            d.box(x + 5, y, 150, 38, part, "fixed" if part == "norm" else kind, 14)
            if j:
                d.arrow((x + 80, y + 58), (x + 80, y + 40))
    return d


def chapter_map(part: int, boxes: dict[str, tuple[float, float, bool]], arrows: list[tuple[str, str]]) -> Diagram:
    """Chapters as boxes at (x, y), planned ones dashed; an arrow leads to what builds on it."""
    d = Diagram(760, 230, f"Map of part {part}", "Chapters, with arrows to those that build on them.")
    for a, b in arrows:
        (xa, ya, _), (xb, yb, _) = boxes[a], boxes[b]
        if xb > xa:
            d.arrow((xa + 130, ya + 26), (xb, yb + 26))
        else:
            d.arrow((xa + 65, ya + 52 if yb > ya else ya), (xb + 65, yb if yb > ya else yb + 52))
    for name, (x, y, exists) in boxes.items():
        d.box(x, y, 130, 52, name if exists else f"{name}\n(planned)", "learned" if exists else "planned", 14)
    return d


MAPS = (
    (
        {
            "01 RNN": (20, 90, True), "02 Attention": (170, 90, True), "03 Transformer": (320, 90, True),
            "04 BERT": (470, 20, False), "05 GPT": (470, 160, False), "06 RLHF": (615, 160, False),
        },
        [("01 RNN", "02 Attention"), ("02 Attention", "03 Transformer"), ("03 Transformer", "04 BERT"),
         ("03 Transformer", "05 GPT"), ("05 GPT", "06 RLHF")],
    ),
    (
        {
            "03 Transformer": (20, 90, True), "07 ViT": (220, 30, True), "08 CLIP": (420, 90, True),
            "09 DALL·E": (610, 150, False),
        },
        [("03 Transformer", "07 ViT"), ("03 Transformer", "08 CLIP"), ("07 ViT", "08 CLIP"), ("08 CLIP", "09 DALL·E")],
    ),
    (
        {
            "10 DDPM": (20, 90, True), "11 ELBO": (220, 20, False), "12 Samplers": (220, 90, False),
            "15 Latents": (220, 160, True), "13 Editing": (420, 90, False), "14 unCLIP": (610, 90, False),
            "08 CLIP": (610, 15, True),
        },
        [("10 DDPM", "11 ELBO"), ("10 DDPM", "12 Samplers"), ("10 DDPM", "15 Latents"), ("12 Samplers", "13 Editing"),
         ("13 Editing", "14 unCLIP"), ("08 CLIP", "14 unCLIP")],
    ),
    (
        {
            "03 Transformer": (20, 20, True), "07 ViT": (20, 90, True), "15 Latents": (20, 160, True),
            "16 DiT": (220, 90, True), "17 Evaluation": (420, 30, True), "18 Scaling": (420, 150, True),
            "19 Text to image": (610, 90, False),
        },
        [("03 Transformer", "16 DiT"), ("07 ViT", "16 DiT"), ("15 Latents", "16 DiT"), ("16 DiT", "17 Evaluation"),
         ("16 DiT", "18 Scaling"), ("16 DiT", "19 Text to image")],
    ),
)  # fmt: skip
DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    "rnn-cells": rnn_cells, "attention": attention, "transformer": transformer, "vit": vit, "clip": clip,
    "diffusion-chain": diffusion_chain, "unet": unet, "latent-diffusion": latent_diffusion, "dit": dit,
    "dit-blocks": dit_blocks,
}  # fmt: skip

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
    files = {f"figures/{name}.svg": draw().svg() for name, draw in DIAGRAMS.items()}
    for part, (boxes, arrows) in enumerate(MAPS, 1):
        files[f"figures/map{part}.svg"] = chapter_map(part, boxes, arrows).svg()
    return {**files, "logo.svg": sign("ditbook"), "favicon.svg": sign()}


if __name__ == "__main__":
    for name, text in drawings().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
