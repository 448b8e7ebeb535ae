import hashlib
import json
import subprocess
import sys
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk

from ditbook.data import shapes, tensors
from ditbook.data import user_images as hub
from ditbook.data.captions import COLOURS, RELATIONS, SHAPES, SIZES, Scene, Thing, parse_english
from ditbook.data.shapes import GAP, NEW_PAIRS, PAIRS, RADII, SEEN_PAIRS, Layout, holds, render, sample

STAR, SQUARE = Thing("small", "red", "star"), Thing("large", "blue", "square")
TWO = Layout(Scene((STAR, SQUARE), ("above",)), ((12, 6), (14, 20)))


@pytest.fixture(scope="module")
def layouts():
    return sample(3000, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("one", "other", "true"),
    [
        ((5, 9), (20, 12), {"left of"}),
        ((20, 12), (5, 9), {"right of"}),
        ((9, 5), (12, 20), {"above"}),  # y grows downwards
        ((12, 20), (9, 5), {"below"}),
        ((5, 5), (9, 9), set()),
        ((5, 9), (9, 5), set()),
    ],
)
def test_one_relation_of_two_places_holds_or_none(one, other, true):
    assert {word for word in RELATIONS if holds(word, one, other)} == true


def test_a_picture_shows_a_scene_however_it_is_said(layouts):
    for layout in layouts[:300]:
        seen = list(zip(layout.scene.things, layout.places, strict=True))
        assert shapes.shows(seen[::-1], layout.scene)
        assert not shapes.shows([*seen, (STAR, (1, 1))], layout.scene)
        assert not shapes.shows(seen[1:], layout.scene)
        mirrored = [(thing, (32 - x, 32 - y)) for thing, (x, y) in seen]
        if len(seen) == 2:  # relations are turned round, which only twins do not show
            assert shapes.shows(mirrored, layout.scene) == (seen[0][0] == seen[1][0])
    star, square, moon = STAR, SQUARE, Thing("small", "white", "moon")
    seen = [(star, (6, 6)), (square, (20, 7)), (moon, (19, 25))]
    for text, true in {
        "a small red star left of a large blue square above a small white moon": True,
        "a small white moon below a large blue square right of a small red star": True,
        "a large blue square right of a small red star above a small white moon": True,
        "a large blue square above a small white moon left of a small red star": False,
        "a small red star left of a large blue square": False,
        "a large red star left of a large blue square above a small white moon": False,
        "a small red star above a large blue square above a small white moon": False,
    }.items():
        assert shapes.shows(seen, parse_english(text)) == true, text


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


def test_json_keeps_a_layout(layouts):
    for layout in layouts[:200]:
        assert Layout.from_json(layout.to_json()) == layout
        assert Scene.from_json(layout.to_json()) == layout.scene
    assert json.loads(TWO.to_json()) == {
        "places": [[12, 6], [14, 20]],
        "relations": ["above"],
        "things": [
            {"colour": "red", "shape": "star", "size": "small"},
            {"colour": "blue", "shape": "square", "size": "large"},
        ],
    }


@pytest.mark.parametrize(
    ("scene", "places", "message"),
    [
        (TWO.scene, ((12, 6),), "2 things at 1 places; expected as many"),
        (Scene((STAR,) * 4, ("above",) * 3), ((4, 4),) * 4, "4 things at 4 places; expected as many, 3 at most"),
        (TWO.scene, ((12, 3), (14, 20)), r"at \(12, 3\) leaves the picture: 4 to 28"),
        (TWO.scene, ((12, 6), (27, 20)), r"at \(27, 20\) leaves the picture: 6 to 26"),
        (TWO.scene, ((12, 10), (14, 20)), r"\(12, 10\) and \(14, 20\) overlap: they must be 11 pixels apart"),
        (TWO.scene, ((12, 26), (14, 12)), r"at \(12, 26\) is not above one at \(14, 12\)"),
        (TWO.scene, ((5, 5), (18, 18)), r"is not above one at \(18, 18\)"),
    ],
)
def test_an_untrue_layout_is_refused(scene, places, message):
    with pytest.raises(ValueError, match=message):
        Layout(scene, places)


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
    share = np.mean([shapes.held_out(layout) for layout in sample(3000, torch.Generator().manual_seed(3))])
    assert 0.08 < share < 0.12


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
    ours = hub.load(tmp_path / "shapes.parquet")  # the book's three columns
    assert ours.column_names == ["image", "label", "caption"]
    assert list(ours["caption"]) == list(rows["caption"])
    assert all(torch.equal(tensors(ours)[name], pixels[name]) for name in pixels)


def test_what_cannot_be_loaded_is_named():
    with pytest.raises(ValueError, match=r"unknown split 'test': .*'train', 'validation', 'compositional'"):
        shapes.load("test")
    with pytest.raises(ValueError, match="size must be positive, not 0"):
        shapes.load(size=0)
    with pytest.raises(ValueError, match="1 to 3 things, not 0"):
        shapes.load(things=0)


def test_importing_the_module_is_light():
    code = "import sys, ditbook.data.shapes; print({'torch', 'datasets', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
