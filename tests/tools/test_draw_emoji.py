import xml.etree.ElementTree as ElementTree

import draw_emoji
import pytest

from ditbook.data import emoji

SET = {
    "width": 36,
    "height": 36,
    "icons": {"hand": {"body": "<path/>"}, "train": {"body": "<g/>", "width": 30, "left": 2}, "bus": {"body": "<g/>"}},
    "aliases": {
        "palm": {"parent": "hand"},
        "hand-right": {"parent": "hand", "hFlip": True},
        "palm-left": {"parent": "hand-right", "hFlip": True},
        "crooked": {"parent": "hand", "rotate": 1},
    },
}


def test_a_drawing_stands_in_the_middle_of_a_square_and_can_be_a_mirror_image():
    assert ElementTree.fromstring(draw_emoji.svg(SET, "hand")).get("viewBox") == "0.0 0.0 36 36"
    assert ElementTree.fromstring(draw_emoji.svg(SET, "train")).get("viewBox") == "-1.0 0.0 36 36"
    assert draw_emoji.svg(SET, "palm") == draw_emoji.svg(SET, "palm-left") == draw_emoji.svg(SET, "hand")
    assert 'transform="translate(36 0) scale(-1 1)"' in draw_emoji.svg(SET, "hand-right")
    with pytest.raises(AssertionError):
        draw_emoji.svg(SET, "crooked")


def test_other_names_count_and_mirror_images_are_other_things():
    files = {"one": {"icons": SET, "chars": {"270B-FE0F": "hand"}}, "other": {"icons": {"icons": {}}, "chars": {}}}
    assert draw_emoji.code_points(files) == {"hand": "270b", "palm": "270b"}


def test_one_drawing_of_two_things_counts_for_the_shorter_name():
    icons = {"icons": {"a": {"body": '<g id="SVG0x1"/>'}, "b": {"body": '<g id="SVG7y2"/>'}, "c": {"body": "<g/>"}}}
    wanted = {"1": "man running", "2": "person", "3": "moon", "4": "sun"}
    found = draw_emoji.drawings(icons, {"a": "1", "b": "2", "c": "3", "d": "4"}, wanted)
    assert set(found) == {"2", "3"}
    assert "SVG7y2" in found["2"]


def test_the_hands_are_those_of_the_loader():
    assert tuple(draw_emoji.HANDS) == emoji.HANDS
    assert {
        hand: {"package": f"@iconify-json/{package}", "license": license, "author": author}
        for hand, (package, license, author) in draw_emoji.HANDS.items()
    } == emoji.licenses()
