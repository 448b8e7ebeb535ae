"""The stored measurements of the emoji in chapter 14: complete, and found again."""

import experiments_emoji as experiments
import pytest
import torch

from ditbook import results
from ditbook.data import emoji

ROWS = results.load("unclip-emoji")


def test_every_source_is_measured_with_every_draw_of_noise():
    wanted = [(source, 0) for source in experiments.DRAWINGS]
    wanted += [(source, seed) for source in experiments.SOURCES for seed in experiments.SEEDS]
    assert sorted((row["source"], row["seed"]) for row in ROWS) == sorted(wanted)
    assert {row["pairs"] for row in ROWS} == {len(emoji.load("pairs"))}


def test_among_five_is_never_rarer_than_nearest():
    for row in ROWS:
        assert row["CLIP at 1"] <= row["CLIP at 5"] <= 1
        assert row["latents at 1"] <= row["latents at 5"] <= 1


@pytest.mark.parametrize("source", experiments.DRAWINGS)
def test_rows_without_noise_are_found_again(source):
    (row,) = [row for row in ROWS if row["source"] == source]
    for name, value in experiments.judged(experiments.images(source, 0)).items():
        assert value == pytest.approx(row[name], abs=0.02), name


def test_drawings_held_out_are_nearest_to_themselves():
    found = experiments.judged(experiments.world()["pairs"]["images"])
    assert {found[name] for name in found if name != "thing"} == {1.0}


def test_rivals_are_by_another_hand_and_of_the_same_thing():
    train, pairs = (experiments.world()[split] for split in experiments.SPLITS)
    x = experiments.images("same thing by another hand", 0)
    for k in range(0, len(x), 20):
        found = (train["images"] == x[k]).flatten(1).all(dim=1)
        assert (train["thing"][found] == pairs["thing"][k]).any()
        assert (train["hand"][found] != pairs["hand"][k]).any()


def test_another_draw_of_noise_gives_another_picture():
    u = experiments.world()["pairs"]["image"][:2]
    first, again, other = (experiments.decoded(u, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01
