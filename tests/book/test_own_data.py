"""What the pages say of one's own data runs as it stands, and the page of the worlds has a row for each."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import IterableDataset
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HELPERS = {
    "columns",
    "drawing",
    "hub",
    "image_folder",
    "images",
    "metadata",
    "scene",
    "splits",
    "tokenizer",
    "user_images",
}


def programs(page):
    text = (ROOT / "book" / page).read_text(encoding="utf-8")
    return [
        code
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "user_images.load" in code or "batches(" in code
    ]


@pytest.fixture
def folders(tmp_path):
    """A folder of two classes, and one of captioned images."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 40, 3), dtype=np.uint8)
    for k, image in enumerate(pixels):
        for path in (
            tmp_path / "folder-of-images" / "ab"[k % 2] / f"{k}.jpg",
            tmp_path / "captioned-images" / f"{k}.png",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        (tmp_path / "captioned-images" / f"{k}.txt").write_text(f"image {k}")
    return tmp_path


def test_the_programs_of_the_pages_run(folders):
    found = {}
    for page in ("running.md", "teaching.md"):
        for code in programs(page):
            exec(code.replace("path/to", str(folders)), found)
        if page == "running.md":
            assert found["train_set"]["image"].shape == (20, 3, 32, 32)
            assert found["train_set"]["label"].bincount().tolist() == [10, 10]
            assert isinstance(found["dataset"], IterableDataset)
            assert found["batch"]["image"].shape == (16, 3, 32, 32)
            assert len(found["batch"]["caption"]) == 16
            assert set(found["batch"]["caption"]) <= {f"image {k}" for k in range(20)}
    batch = found["batch"]
    assert (batch["image"].shape, batch["image"].dtype) == ((20, 1, 8, 8), torch.float32)


def test_each_world_has_its_row():
    rows = re.findall(
        r"^\|.*<ditbook\.data\.(\w+)", (ROOT / "book/worlds.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    modules = {path.stem for path in (ROOT / "src/ditbook/data").glob("*.py")} - {"__init__"}
    assert sorted(rows) == sorted(modules - HELPERS)
