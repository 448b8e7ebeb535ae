import json

import pytest
import torch

from ditbook.data.captions import parse_english
from ditbook.data.scene import RELATIONS, Layout, Scene, Thing, holds, shows
from ditbook.data.shapes import sample

STAR, SQUARE = Thing("small", "red", "star"), Thing("large", "blue", "square")
TWO = Layout(Scene((STAR, SQUARE), ("above",)), ((12, 6), (14, 20)))


@pytest.fixture(scope="module")
def layouts():
    return sample(300, torch.Generator().manual_seed(0))


def test_what_is_no_scene_is_refused():
    with pytest.raises(ValueError, match="'pink' is none of red, green"):
        Thing("small", "pink", "star")
    with pytest.raises(ValueError, match="1 to 5 things, not 0"):
        Scene(())
    with pytest.raises(ValueError, match="2 things need 1 relations"):
        Scene((STAR, SQUARE))
    with pytest.raises(ValueError, match="'near' is none of above"):
        Scene((STAR, SQUARE), ("near",))


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


def test_an_image_shows_a_scene_however_it_is_said(layouts):
    for layout in layouts:
        seen = list(zip(layout.scene.things, layout.places, strict=True))
        assert shows(seen[::-1], layout.scene)
        assert not shows([*seen, (STAR, (1, 1))], layout.scene)
        assert not shows(seen[1:], layout.scene)
        mirrored = [(thing, (32 - x, 32 - y)) for thing, (x, y) in seen]
        if len(seen) == 2:  # relations are turned round, which only twins do not show
            assert shows(mirrored, layout.scene) == (seen[0][0] == seen[1][0])
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
        assert shows(seen, parse_english(text)) == true, text


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
        (TWO.scene, ((12, 3), (14, 20)), r"at \(12, 3\) leaves the image: 4 to 28"),
        (TWO.scene, ((12, 6), (27, 20)), r"at \(27, 20\) leaves the image: 6 to 26"),
        (TWO.scene, ((12, 10), (14, 20)), r"\(12, 10\) and \(14, 20\) overlap: they must be 11 pixels apart"),
        (TWO.scene, ((12, 26), (14, 12)), r"at \(12, 26\) is not above one at \(14, 12\)"),
        (TWO.scene, ((5, 5), (18, 18)), r"is not above one at \(18, 18\)"),
    ],
)
def test_an_untrue_layout_is_refused(scene, places, message):
    with pytest.raises(ValueError, match=message):
        Layout(scene, places)
