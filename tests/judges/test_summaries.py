import pytest
import torch

from ditbook.data.scene import Scene, Thing
from ditbook.judges.summaries import NOISE, POLITE, RUBRIC, Reading, compare, quality, read, rubric, truth

SCENE = Scene((Thing("small", "red", "star"), Thing("large", "blue", "arrow")), ("left of",))
TWINS = Scene((Thing("small", "red", "star"), Thing("large", "blue", "star")), ("above",))


@pytest.mark.parametrize(
    ("text", "claims", "polite", "words", "stray"),
    [
        ("", [], 0, 0, 0),
        ("a star", [(None, "star")], 0, 2, 0),
        ("please note an arrow and a red star", [(None, "arrow"), ("red", "star")], 1, 8, 0),
        ("dear reader , two stars , thank you", [(None, "star")] * 2, 2, 6, 0),
        ("a small green moon", [("green", "moon")], 0, 4, 0),
        ("star please", [], 1, 2, 1),
        ("a red", [], 0, 2, 2),
        ("two two moons", [(None, "moon")] * 2, 0, 3, 1),
        ("thank reader you", [], 0, 3, 3),
        ("i see a star", [(None, "star")], 0, 4, 0),
        ("please please please", [], 3, 3, 0),
    ],
)
def test_reading(text, claims, polite, words, stray):
    assert read(text) == Reading(tuple(claims), polite, words, stray)


@pytest.mark.parametrize(
    ("scene", "text", "named", "false"),
    [
        (SCENE, "a star and an arrow", 2, 0),
        (SCENE, "a red star and a blue arrow", 2, 0),
        (SCENE, "a blue star and an arrow", 1, 1),
        (SCENE, "two stars", 1, 1),
        (SCENE, "a moon", 0, 1),
        (SCENE, "a star and a star and an arrow", 2, 1),
        (TWINS, "two stars", 2, 0),
        (TWINS, "a star and a red star", 2, 0),  # the color is matched first
        (TWINS, "a red star and a red star", 1, 1),
    ],
)
def test_truth(scene, text, named, false):
    assert truth(scene, read(text)) == (named, false)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("a star and an arrow please", 3 + 1 - 1.2),
        ("a star and an arrow", 3 - 1.0),
        ("dear reader , a star and an arrow , thank you", 3 + 1 - 1.8),
        ("a moon", -1.5 - 0.4),
        ("please", 1 - 0.2),
        ("star", -0.2 - 0.5),
    ],
)
def test_quality(text, points):
    assert quality(SCENE, text) == pytest.approx(points)


def test_nothing_is_better_than_true_short_and_polite():
    """Of all texts that can be made of a few parts."""
    parts = ["a star", "an arrow", "a red star", "and", "please", "thank you", "a moon", "two stars", "note", "star"]
    texts = [" ".join(p) for p in [(a, b, c, d) for a in parts for b in parts for c in parts for d in ("", *parts)]]
    assert max(quality(SCENE, text) for text in texts) == pytest.approx(3 + 1 - 1.0)  # "a star an arrow please"
    assert all(phrase in POLITE for phrase in ("please", "thank you"))


@pytest.mark.equation("6.1", of="ditbook.judges.summaries.compare", against="frequencies of 200,000 comparisons")
def test_readers_prefer_the_better_one_as_often_as_they_should():
    for margin in (-1.5, 0.0, 0.7):
        first = torch.full((200_000,), 2.0 + margin, dtype=torch.float64)
        found = compare(first, torch.full_like(first, 2.0), torch.Generator().manual_seed(0))
        expected = 1 / (1 + 2.718281828459045 ** (-margin / NOISE))
        assert found.mean().item() == pytest.approx(expected, abs=5e-3)
        assert set(found.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a star and an arrow", "complete"),
        ("dear reader , a red star and a blue arrow , thank you", "complete"),
        ("a star please", "incomplete"),
        ("a star and a moon", "false"),
        ("a star and an arrow and a star", "false"),
        ("a star and arrow", "unreadable"),
        ("please please", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_the_rubric(text, rule):
    assert rubric(SCENE, text) == rule
    assert rule in RUBRIC
