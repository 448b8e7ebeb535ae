"""Pack the network that paints in the built pages: python tools/pack_weights.py

The pages are read from a file, where a script may load scripts and nothing else. So the weights become one: base64 of
their 16-bit numbers, with the text of the worker that uses them. `build_book.py` packs them anew for each build.
"""

import base64
import json
from pathlib import Path

import torch

from ditbook import weights

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "static"
NAME = "dit-digits-28-small"
PACKED = STATIC / "vendor" / f"{NAME}.js"  # in a folder that git ignores
LARGEST = 2_000_000  # bytes


def packed(name: str = NAME) -> str:
    """The script that sets `window.DIT`: config, names and lengths of the tensors, their numbers, the worker's text.

    Raises:
        ValueError: the script is larger than 2 MB.
    """
    model = weights.load(name)
    tensors = {key: value.half() for key, value in model.state_dict().items()}
    numbers = torch.cat([value.flatten() for value in tensors.values()]).numpy().astype("<f2").tobytes()
    about = {
        "config": weights.metadata(name)["model"],
        "tensors": [[key, value.numel()] for key, value in tensors.items()],
        "base64": base64.b64encode(numbers).decode(),
        "worker": (STATIC / "dit.js").read_text(encoding="utf-8"),
    }
    script = f"window.DIT = {json.dumps(about)};\n"
    if len(script) > LARGEST:
        raise ValueError(f"{name} packs into {len(script):,} bytes; a page may load {LARGEST:,}: train a smaller one")
    return script


def pack() -> None:
    """Write `PACKED`."""
    PACKED.parent.mkdir(exist_ok=True)
    PACKED.write_text(packed(), encoding="utf-8")


if __name__ == "__main__":
    pack()
    print(f"{PACKED.relative_to(ROOT)}: {PACKED.stat().st_size:,} bytes")
