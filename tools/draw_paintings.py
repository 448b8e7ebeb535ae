"""Paint the emoji that the gallery of chapter 19 shows: python tools/draw_paintings.py

The model is too large to be loaded by a page, so what it paints is painted beforehand: for each name and hand a row of
pictures in one image, first the hand's own drawing, then a painting for each scale of guidance and seed. The pages are
read from a file, where a script may load scripts and nothing else: so the image stands in one,
book/static/paintings.js.
"""

import base64
import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ditbook import data, pipeline, weights
from ditbook.data import emoji
from ditbook.training.tasks import emoji as emoji_task
from ditbook.training.tasks import text_dit as task

FILE = Path(__file__).resolve().parents[1] / "book/static/paintings.js"
NAME = "text-dit-emoji"
KNOWN = ("red apple", "blue heart", "grinning face", "cat face", "hamburger", "cactus", "rocket", "owl", "house")
KNOWN += ("mushroom", "fish", "sailboat", "sunflower", "scissors", "heart exclamation", "person with veil")
NEW = ("green apple", "brown circle", "airplane", "bear")  # things that training never showed
NAMES = (*KNOWN, *NEW)
SCALES, SEEDS = (1.0, 2.5, 4.0), (0, 1, 2)
QUALITY = 90  # of WebP
SPLITS = ("train", "pairs", "things")


def drawings() -> dict[tuple[str, int], tuple[str, Tensor]]:
    """Of each name and hand of the gallery the split that its drawing is in, and the drawing, (3, 32, 32)."""
    found = {}
    for split in SPLITS:
        dataset = emoji.load(split)
        pairs = zip(dataset["caption"], dataset["hand"], strict=True)
        places = {k: pair for k, pair in enumerate(pairs) if pair[0] in NAMES}
        images = data.tensors(dataset.select(list(places)))["image"]
        found |= {pair: (split, image) for pair, image in zip(places.values(), images, strict=True)}
    return found


def paintings(names: tuple[str, ...], scale: float, seed: int) -> Tensor:
    """Each name by each hand, (names · 6, 3, 32, 32)."""
    model, about = weights.load(NAME), weights.metadata(NAME)
    process, coder = pipeline.process(model, None, about["schedule"]), weights.load(about["latents_of"])
    tokens = emoji_task.prompts([name for name in names for _ in emoji.HANDS])[0]
    y, generator = torch.arange(len(emoji.HANDS)).repeat(len(names)), torch.Generator().manual_seed(seed)
    return task.generate(model, process, coder, tokens, y, generator, guidance=scale)


def sheet() -> tuple[Image.Image, list[str]]:
    """The image, and of each row the split of its drawing, or "" where the hand has none: then the drawing is grey."""
    true, rows = drawings(), list(product(NAMES, range(len(emoji.HANDS))))
    first = torch.stack([true[row][1] if row in true else torch.zeros(3, 32, 32) for row in rows])
    columns = [first, *(paintings(NAMES, scale, seed) for scale in SCALES for seed in SEEDS)]
    pixels = rearrange(torch.stack(columns), "column row c y x -> (row y) (column x) c")
    image = Image.fromarray(((pixels + 1) * 127.5).round().numpy().astype(np.uint8))
    return image, [true[row][0] if row in true else "" for row in rows]


def script() -> str:
    """The script that sets `window.PAINTINGS`."""
    image, splits = sheet()
    file = io.BytesIO()
    image.save(file, "WebP", quality=QUALITY, method=6)
    about = {"names": NAMES, "hands": emoji.HANDS, "scales": SCALES, "seeds": SEEDS, "splits": splits}
    about["image"] = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f"window.PAINTINGS = {json.dumps(about)};\n"


if __name__ == "__main__":
    FILE.write_text(script(), encoding="utf-8")
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
