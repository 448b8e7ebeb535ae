"""Grids of images, film strips, and a slider.

Letters: `N` images, `T` frames, `C H W` channels, height, width.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ditbook.plotting.style import checked_alt

if TYPE_CHECKING:
    from IPython.display import HTML

PAGE = 680  # pixels: the width of a column of text in the built book
IMAGE = 60  # pixels: about how wide a small image is drawn
GAP = 6  # pixels between images
TEXT = 11  # pixels: the height of a title over an image


def grid(
    images: Any,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    scale: int | None = None,
) -> Figure:
    """Draw images in reading order, each pixel a sharp square.

    Args:
        images: (N, C, H, W) in [-1, 1], tensor or array, C 1 or 3; values outside are clipped.
        columns: images per row; by default as even as possible within the width of the page.
        titles: one per image, drawn above it; or one per column, drawn above the first row.
        rows: one per row, drawn at its left; they make `columns` the number of images over that of rows.
        scale: page pixels per image pixel; by default an image is about 60 pixels wide.

    Raises:
        ValueError: not (N, C, H, W) with C 1 or 3, no image, not finite, or a number of titles or rows that does
            not fit.
    """
    pixels = _pixels(images)  # (N, H, W, C)
    count, height, width = pixels.shape[:3]
    if rows is not None:
        if not rows or count % len(rows):
            raise ValueError(f"{count} images do not fill {len(rows)} rows evenly")
        columns = count // len(rows)
    titles = list(titles or ())
    scale = scale or max(1, round(IMAGE / width))
    across = max(width * scale, _text_width(titles)) + GAP  # from one column to the next
    side = _text_width(rows) + GAP if rows else 0
    if columns is None:
        columns = math.ceil(count / math.ceil(count / max(1, (PAGE - side) // across)))
    if titles and len(titles) not in (count, columns):
        raise ValueError(f"{count} images in {columns} columns need {columns} or {count} titles, not {len(titles)}")
    head = round(1.4 * TEXT) * max((title.count("\n") + 1 for title in titles), default=0)
    heads = math.ceil(count / columns) if len(titles) == count else 1  # rows with titles above them
    down = height * scale + GAP  # from one row to the next, beside its titles
    page = side + columns * across + GAP, math.ceil(count / columns) * down + heads * head + GAP
    fig = Figure(figsize=(page[0] / 72, page[1] / 72), facecolor="white")
    fig.set_layout_engine("none")  # the axes below are placed to the pixel
    for index, picture in enumerate(pixels):
        row, column = divmod(index, columns)
        left = side + GAP + column * across + (across - GAP - width * scale) // 2
        bottom = page[1] - (row + 1) * down - min(row + 1, heads) * head
        axes = fig.add_axes((left / page[0], bottom / page[1], width * scale / page[0], height * scale / page[1]))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        if index < len(titles):
            axes.set_title(titles[index], fontsize=TEXT, pad=3)
        if rows and column == 0:
            middle = (bottom + height * scale / 2) / page[1]
            fig.text(side / page[0], middle, rows[row], fontsize=TEXT, ha="right", va="center")
    return fig


def _text_width(texts: Sequence[str]) -> int:
    """About how many pixels the longest line takes."""
    return round(0.62 * TEXT * max((len(line) for text in texts for line in text.split("\n")), default=0))


def filmstrip(frames: Any, labels: Sequence[str]) -> Figure:
    """Draw frames (T, C, H, W) in [-1, 1] side by side in one row, as large as the page allows, labels above.

    Raises:
        ValueError: as for `grid`; there must be one label per frame.
    """
    count, _, width, _ = _pixels(frames).shape  # (T, H, W, C)
    room = (PAGE - GAP) // count - GAP
    return grid(frames, columns=count, titles=labels, scale=max(1, min(room, 2 * IMAGE) // width))


def slider(frames: Any, labels: Sequence[str], alt: str, id: str) -> HTML:
    """Let the reader step through frames with a slider: plain HTML that needs no library, no kernel, no network.

    All frames stand side by side in one PNG inside the page; the slider moves it behind a window of one frame.

    Args:
        frames: (T, C, H, W) in [-1, 1], tensor or array, C 1 or 3, T at least 2.
        labels: one per frame; shown beside the slider and read out by screen readers.
        alt: what the frames show, at least 10 characters.
        id: the HTML id, fixed so that running the cell again stores the same text.

    Raises:
        ValueError: as for `grid`; fewer than two frames, not one label per frame, or an id that HTML does not allow.
    """
    from IPython.display import HTML

    alt = checked_alt(alt)
    pixels = _pixels(frames)  # (T, H, W, C)
    count, height, width = pixels.shape[:3]
    if count < 2 or len(labels) != count:
        raise ValueError(f"a slider needs two frames or more and one label each, not {count} and {len(labels)}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", id):
        raise ValueError(f"the id {id!r} must be a letter, then letters, digits, '-' or '_'")
    shown = width * max(1, min(PAGE // width, 256 // height))
    return HTML(
        SLIDER.format(
            id=id,
            alt=html.escape(alt),
            labels=html.escape(json.dumps([str(label) for label in labels], ensure_ascii=False)),
            first=html.escape(str(labels[0])),
            last=count - 1,
            shown=shown,
            ratio=f"{width} / {height}",
            stretch=100 * count,
            sprite=base64.b64encode(_sprite(pixels)).decode(),
        )
    )


SLIDER = """\
<div id="{id}" data-labels="{labels}" style="color: inherit; max-width: 100%">
<div role="img" aria-label="{alt}" style="width: {shown}px; max-width: 100%; aspect-ratio: {ratio}; \
background: url(data:image/png;base64,{sprite}) 0% 0% / {stretch}% 100% no-repeat; image-rendering: pixelated"></div>
<label for="{id}-range">Frame</label>
<input type="range" id="{id}-range" min="0" max="{last}" step="1" value="0" autocomplete="off" \
aria-valuetext="{first}" style="width: 16em; max-width: 60%; vertical-align: middle" \
oninput="const box = this.parentElement, name = JSON.parse(box.dataset.labels)[this.value]; \
box.querySelector('[role=img]').style.backgroundPositionX = 100 * this.value / this.max + '%'; \
box.querySelector('span').textContent = name; this.setAttribute('aria-valuetext', name)">
<span>{first}</span>
</div>"""


def _sprite(pixels: np.ndarray) -> bytes:
    """Join frames (T, H, W, C) from left to right into one PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    joined = np.concatenate(list(pixels), axis=1)  # (H, T·W, C)
    Image.fromarray(joined[..., 0] if joined.shape[2] == 1 else joined).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _pixels(images: Any) -> np.ndarray:
    """Turn (N, C, H, W) in [-1, 1] into uint8 (N, H, W, C)."""
    if hasattr(images, "detach"):
        images = images.detach().float().cpu()
    values = np.asarray(images, dtype=np.float64)
    if values.ndim != 4 or values.shape[1] not in (1, 3) or 0 in values.shape:
        raise ValueError(f"expected images of shape (N, C, H, W) with 1 or 3 channels, found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the images hold values that are not finite, so there is nothing to draw")
    return np.rint((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)  # (N, H, W, C)
