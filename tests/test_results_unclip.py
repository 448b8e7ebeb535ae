"""The stored measurements of chapter 14: complete, and what they count is what it should be."""

import random
from itertools import product

import experiments_probes as probes
import experiments_unclip as experiments
import pytest
import torch

from ditbook import results, weights
from ditbook.data import captions, shapes
from ditbook.data.scene import Layout, Scene, Thing
from ditbook.training.tasks import unclip

STAR, MOON = Thing("small", "red", "star"), Thing("large", "blue", "moon")
LAYOUT = Layout(Scene((STAR, MOON), ("left of",)), ((6, 16), (22, 16)))
AT = list(zip(LAYOUT.scene.things, LAYOUT.places, strict=True))


def test_every_source_is_measured_with_three_seeds():
    found = [(row["source"], row["things"], row["seed"]) for row in results.load("unclip-sources")]
    assert sorted(found) == sorted(product(experiments.SOURCES, (1, 2), experiments.SEEDS))
    assert {row["scenes"] for row in results.load("unclip-sources")} == {experiments.COUNT}


def test_parts_are_never_rarer_than_what_needs_them():
    for row in results.load("unclip-sources"):
        assert row["whole"] <= row["pairs"] <= min(row["colours"], row["shapes"]) <= row["number"]
        assert row["bound"] == round(row["pairs"] * row["scenes"])


def test_the_mixtures_of_captions_are_complete():
    found = [(row["fraction"], row["seed"], row["prompts"]) for row in results.load("unclip-captions")]
    assert sorted(found) == sorted(product(experiments.FRACTIONS, experiments.SEEDS, experiments.PROMPTS))
    assert {row["steps"] for row in results.load("unclip-captions")} == {experiments.TRAINING["steps"]}


def test_the_probes_are_complete():
    found = [(row["source"], row["seed"]) for row in results.load("unclip-probe")]
    assert sorted(found) == sorted(product(experiments.SOURCES, experiments.SEEDS))
    assert all("apart" in row for row in results.load("unclip-probe") if row["source"] == "image")
    assert [row["seed"] for row in results.load("unclip-places")] == list(experiments.SEEDS)


def test_the_vector_says_a_little_of_the_quarter_in_which_a_thing_stands():
    for row in results.load("unclip-places"):
        assert 0.05 < row["place"] - row["commonest"] < 0.2


def test_quarters_of_the_picture():
    at = [(6, 6), (16, 6), (15, 16), (26, 26)]
    layouts = [Layout(Scene((STAR,), ()), (place,)) for place in at]
    assert probes.quarters(layouts).tolist() == [0, 1, 2, 3]


def test_a_row_is_found_again():
    layouts = experiments.scenes(1)
    batch = unclip.embedded(layouts, weights.load("clip-shapes"))
    (row,) = [it for it in results.load("unclip-sources") if (it["source"], it["things"], it["seed"]) == ("text", 1, 0)]
    found = experiments.counted(experiments.decoded(batch["text"], torch.Generator().manual_seed(0)), layouts)
    for name, value in found.items():
        assert value == pytest.approx(row[name], abs=0.02 if value <= 1 else 3), name


@pytest.mark.parametrize("count", [1, 2])
def test_scenes_are_held_out_and_their_things_share_nothing(count):
    for layout in experiments.scenes(count, 50):
        assert shapes.held_out(layout)
        for part in zip(*((it.colour, it.shape) for it in layout.scene.things), strict=True):
            assert len(set(part)) == count


def test_what_is_kept_of_a_scene():
    assert all(experiments.kept(AT, LAYOUT).values())
    swapped = [(Thing("small", "blue", "star"), (6, 16)), (Thing("large", "red", "moon"), (22, 16))]
    kept = experiments.kept(swapped, LAYOUT)
    assert [name for name, right in kept.items() if right] == ["number", "colours", "shapes", "sizes", "places"]
    moved = experiments.kept([(STAR, (6, 6)), (MOON, (22, 22))], LAYOUT)
    assert [name for name, right in moved.items() if not right] == ["places"]
    assert all(experiments.kept([(STAR, (22, 16)), (MOON, (6, 16))], LAYOUT).values())  # the places, not whose
    larger = experiments.kept([(Thing("large", "red", "star"), (6, 16)), AT[1]], LAYOUT)
    assert [name for name, right in larger.items() if not right] == ["sizes", "whole"]
    assert not any(experiments.kept(AT[:1], LAYOUT).values())


def test_the_probe_s_targets_name_colors_shapes_pairs_and_the_relation():
    (row,) = probes.targets([LAYOUT])
    assert row[:80].sum() == 6
    red_star, blue_moon = (shapes.PAIRS.index(pair) for pair in (("red", "star"), ("blue", "moon")))
    assert row[16 + red_star] == row[16 + blue_moon] == 1
    assert probes.RELATIONS[int(row[80])] == "left of"
    turned = Layout(Scene((MOON, STAR), ("right of",)), ((22, 16), (6, 16)))
    assert torch.equal(probes.targets([turned])[0], row)
    perfect = torch.cat([20 * row[:80] - 10, 10 * torch.nn.functional.one_hot(row[80].long(), 4)])
    assert set(probes.probe_accuracy(perfect[None], row[None]).values()) == {1.0}


def test_the_right_pairs_are_preferred_to_those_with_swapped_colors():
    (row,) = probes.targets([LAYOUT])
    logits = torch.zeros(1, 84)
    pairs = {name: 16 + shapes.PAIRS.index(name) for name in (("red", "star"), ("blue", "moon"), ("blue", "star"))}
    logits[0, pairs["red", "star"]] = 1.0
    assert probes.probe_accuracy(logits, row[None])["bound"] == 1.0
    assert probes.probe_accuracy(logits, row[None])["swaps"] == 1
    logits[0, pairs["blue", "star"]] = 2.0
    assert probes.probe_accuracy(logits, row[None])["bound"] == 0.0
    same = Layout(Scene((STAR, Thing("large", "red", "moon")), ("left of",)), LAYOUT.places)
    assert probes.probe_accuracy(logits, probes.targets([same]))["swaps"] == 0


def test_a_probe_learns_what_stands_in_its_vectors():
    x = torch.randn(600, 64, generator=torch.Generator().manual_seed(0)) / 8
    y = (x[:, 0] > 0).long()
    net = probes.trained_probe(x[:500], y[:500], 0, 2, torch.nn.functional.cross_entropy)
    assert (net(8 * x[500:]).argmax(dim=1) == y[500:]).double().mean().item() > 0.85


def test_short_captions_name_one_thing_and_some_are_wrong():
    chance = random.Random(0)
    said = {experiments.short(LAYOUT.scene, chance) for _ in range(100)}
    assert said == {"a star", "a moon", "a red star", "a blue moon"}
    scenes = [layout.scene for layout in unclip.sample_layouts(2000)]
    texts = experiments.noisy(scenes, random.Random(0))
    wrong = sum(
        not experiments.fits([(t, (0, 0)) for t in s.things], text) for s, text in zip(scenes, texts, strict=True)
    )
    assert 0.1 < wrong / len(scenes) < experiments.WRONG  # some of another image's captions fit by chance


def test_a_rewritten_prompt_keeps_what_the_short_one_says():
    chance = random.Random(0)
    for _ in range(20):
        assert experiments.rewritten("a red star", chance) in ("a small red star", "a large red star")
        (thing,) = captions.parse_english(experiments.rewritten("a moon", chance)).things
        assert thing.shape == "moon"
        assert (thing.colour, "moon") in shapes.SEEN_PAIRS


def test_an_image_fits_a_prompt_if_one_of_its_things_does():
    assert experiments.fits(AT, "a red star")
    assert experiments.fits(AT, "a moon")
    assert experiments.fits(AT, "a large blue moon")
    assert not experiments.fits(AT, "a small blue moon")
    assert not experiments.fits(AT, "a blue star")
    assert not experiments.fits([], "a star")


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_a_mixture_has_its_fraction_of_full_captions(fraction, monkeypatch):
    layouts = unclip.sample_layouts(600)
    full = unclip.embedded(layouts, weights.load("clip-shapes"))
    monkeypatch.setattr(experiments, "training_set", lambda: (layouts, full))
    mixed = experiments.mixed_captions(fraction, seed=0)
    whole = (mixed["tokens"][:, : full["tokens"].shape[1]] == full["tokens"]).all(dim=1)
    assert whole.double().mean().item() == pytest.approx(fraction, abs=0.06)
    assert torch.equal(mixed["text"][whole], full["text"][whole])
    assert torch.equal(mixed["image"], full["image"])
