import hashlib
import subprocess
import sys
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk

from ditbook.data import shapes, tensors, user_images
from ditbook.data.captions import parse_english
from ditbook.data.drawing import render
from ditbook.data.scene import COLOURS, GAP, RADII, RELATIONS, SHAPES, SIZES, Layout, Scene
from ditbook.data.shapes import NEW_PAIRS, PAIRS, SEEN_PAIRS, sample


@pytest.fixture(scope="module")
def layouts():
    return sample(3000, torch.Generator().manual_seed(0))


def test_the_caption_is_true_in_the_pixels(layouts):
    """Each thing drawn alone: together they are the picture, they do not touch, and they stand as the scene says."""
    for layout, picture in zip(layouts[:400], render(layouts[:400]), strict=True):
        things = [Layout(Scene((t,)), (at,)) for t, at in zip(layout.scene.things, layout.places, strict=True)]
        alone = render(things)
        np.testing.assert_array_equal(alone.sum(axis=0), picture)
        inked = alone.any(axis=3)  # (things, 32, 32)
        assert not (inked.sum(axis=0) > 1).any()
        for said, one, other in zip(layout.scene.relations, inked[:-1], inked[1:], strict=True):
            if said in ("below", "right of"):
                one, other = other, one
            axis = 0 if said in ("left of", "right of") else 1
            assert np.flatnonzero(one.any(axis=axis)).max() < np.flatnonzero(other.any(axis=axis)).min()


def test_layouts_have_room_and_clear_relations(layouts):
    for layout in layouts:
        rows = [(RADII[thing.size], *at) for thing, at in zip(layout.scene.things, layout.places, strict=True)]
        for radius, x, y in rows:
            assert radius <= min(x, y) <= max(x, y) <= 32 - radius
        for (r, x, y), (s, u, v) in combinations(rows, 2):
            assert max(abs(x - u), abs(y - v)) >= r + s + GAP
        for (_, x, y), (_, u, v) in pairwise(rows):
            assert abs(abs(x - u) - abs(y - v)) >= 3


def test_sampling_reaches_everything_about_equally(layouts):
    things = [thing for layout in layouts for thing in layout.scene.things]
    for words, found in (
        (SIZES, [thing.size for thing in things]),
        (COLOURS, [thing.colour for thing in things]),
        (SHAPES, [thing.shape for thing in things]),
        (RELATIONS, [said for layout in layouts for said in layout.scene.relations]),
        ((1, 2, 3), [len(layout.places) for layout in layouts]),
    ):
        count = Counter(found)
        assert set(count) == set(words)
        assert all(abs(count[word] * len(words) / len(found) - 1) < 0.15 for word in words)
    for axis in (0, 1):
        places = Counter(at[axis] for layout in layouts for at in layout.places)
        assert set(places) == set(range(4, 29))
    assert {len(layout.places) for layout in sample(50, torch.Generator().manual_seed(1), things=2)} == {2}
    with pytest.raises(ValueError, match="has 1 to 3 things, not 4"):
        sample(1, torch.Generator(), things=4)


def test_a_seed_gives_the_same_bytes_on_every_machine(layouts):
    assert hashlib.sha256("\n".join(map(Layout.to_json, layouts)).encode()).hexdigest()[:16] == "e8748e0cc0f1fd6f"
    assert hashlib.sha256(render(layouts).tobytes()).hexdigest()[:16] == "ec7dd8985dc01ea3"
    assert hashlib.sha256(render(layouts[:100], 64).tobytes()).hexdigest()[:16] == "d0d20140ccffab47"
    assert sample(3000, torch.Generator().manual_seed(0)) == layouts


def test_new_pairs_are_new_and_their_words_are_not():
    assert len(PAIRS) == len(set(PAIRS)) == 64
    assert set(SEEN_PAIRS) | set(NEW_PAIRS) == set(PAIRS)
    assert not set(SEEN_PAIRS) & set(NEW_PAIRS)
    assert {colour for colour, _ in NEW_PAIRS} == set(COLOURS)
    assert {shape for _, shape in NEW_PAIRS} == set(SHAPES)


def test_splits_share_no_layout_and_training_no_new_pair():
    rows = {split: shapes.load(split, 600)["scene"] for split in shapes.SPLITS}
    layouts = {split: [Layout.from_json(text) for text in texts] for split, texts in rows.items()}
    assert {shapes.held_out(layout) for layout in layouts["train"]} == {False}
    assert {shapes.held_out(layout) for layout in layouts["validation"] + layouts["compositional"]} == {True}
    for one, other in combinations(rows.values(), 2):
        assert not set(one) & set(other)
    pairs = {
        split: {(thing.colour, thing.shape) for layout in found for thing in layout.scene.things}
        for split, found in layouts.items()
    }
    assert pairs["train"] == pairs["validation"] == set(SEEN_PAIRS)
    assert pairs["compositional"] == set(NEW_PAIRS)
    fraction = np.mean([shapes.held_out(layout) for layout in sample(3000, torch.Generator().manual_seed(3))])
    assert 0.08 < fraction < 0.12


@pytest.mark.parametrize(
    ("split", "settings", "rows", "pixels"),
    [
        ("train", {"size": 1000}, "6c11a021592d2aea", "baed7cfa131cafa4"),
        ("validation", {"size": 500, "seed": 1, "things": 1}, "75a22d3df49124b5", "7a10fdfc24d47831"),
        ("compositional", {"size": 200, "seed": 2, "things": 3, "side": 64}, "1fda765a01e98149", "8a22bae2d03fad65"),
    ],
)
def test_a_seed_gives_the_same_rows_on_every_machine(split, settings, rows, pixels, fingerprint):
    dataset = shapes.load(split, **settings)
    columns = [column for column in dataset.column_names if column != "image"]
    assert fingerprint(dataset, *columns) == rows
    assert hashlib.sha256(tensors(dataset)["image"].numpy().tobytes()).hexdigest()[:16] == pixels


def test_layouts_become_tensors_as_the_dataset_does():
    rows = shapes.load("validation", 50, things=1)
    layouts, ready = [Layout.from_json(text) for text in rows["scene"]], tensors(rows)
    assert torch.equal(shapes.tensors(layouts), ready["image"])
    assert torch.equal(shapes.labels(layouts), ready["label"])
    assert shapes.tensors(layouts[:2], side=64).shape == (2, 3, 64, 64)
    assert shapes.tensors([]).shape == (0, 3, 32, 32)


def test_only_single_things_have_a_class(layouts):
    with pytest.raises(ValueError, match=r"layout 0 has [23] things; only a layout of one thing has a class"):
        shapes.labels([layout for layout in layouts if len(layout.places) > 1])


def test_rows_show_what_they_say():
    rows = shapes.load("validation", 60, seed=5)
    assert rows.column_names == ["image", "caption", "scene"]
    assert len(rows) == 60
    layouts = [Layout.from_json(text) for text in rows["scene"]]
    for row, layout, picture in zip(rows, layouts, render(layouts), strict=True):
        assert parse_english(row["caption"]) == layout.scene
        np.testing.assert_array_equal(np.asarray(row["image"]), picture)
    assert len({*shapes.load("validation", 60, seed=6)["scene"]} - {*rows["scene"]}) > 30
    assert shapes.load("validation", 2, side=64)[0]["image"].size == (64, 64)


def test_single_things_are_labelled():
    rows = shapes.load("compositional", 40, things=1)
    names = rows.features["label"].names
    assert names[:2] == ["red circle", "red square"]
    assert len(names) == 64
    for row in rows:
        (thing,) = parse_english(row["caption"]).things
        assert names[row["label"]] == f"{thing.colour} {thing.shape}"
    ready = tensors(rows)
    assert ready["image"].shape == (40, 3, 32, 32)
    assert ready["image"].min() == -1  # the black ground


def test_files_keep_everything(tmp_path):
    rows = shapes.load("train", 30, things=1)
    pixels = tensors(rows)
    rows.save_to_disk(tmp_path / "folder")
    rows.to_parquet(tmp_path / "shapes.parquet")
    for back in (
        load_from_disk(tmp_path / "folder"),
        Dataset.from_parquet(str(tmp_path / "shapes.parquet"), cache_dir=str(tmp_path / "cache")),
    ):
        assert back.features == rows.features
        for column in ("caption", "scene", "label"):
            assert list(back[column]) == list(rows[column])
        assert torch.equal(tensors(back)["image"], pixels["image"])
    ours = user_images.load(tmp_path / "shapes.parquet")  # the book's three columns
    assert ours.column_names == ["image", "label", "caption"]
    assert list(ours["caption"]) == list(rows["caption"])
    assert all(torch.equal(tensors(ours)[name], pixels[name]) for name in pixels)


def test_what_cannot_be_loaded_is_named():
    with pytest.raises(ValueError, match=r"unknown split 'test': .*'train', 'validation' and 'compositional'"):
        shapes.load("test")
    with pytest.raises(ValueError, match="size must be positive, not 0"):
        shapes.load(size=0)
    with pytest.raises(ValueError, match="1 to 3 things, not 0"):
        shapes.load(things=0)


def test_importing_the_module_is_light():
    code = "import sys, ditbook.data.shapes; print({'torch', 'datasets', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
