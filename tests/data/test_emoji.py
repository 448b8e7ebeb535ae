import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from ditbook.data import emoji, tensors


@pytest.fixture(scope="module")
def rows():
    return {split: emoji.load(split) for split in emoji.SPLITS}


@pytest.fixture(scope="module")
def images(rows):
    return {split: tensors(dataset)["image"].numpy() for split, dataset in rows.items()}


def drawings(dataset):
    """Every (thing, hand) of a dataset."""
    names = dataset.features["hand"].names
    return {(thing, names[hand]) for thing, hand in zip(dataset["thing"], dataset["hand"], strict=True)}


def test_the_splits_hold_every_drawing_once(rows):
    assert {split: len(dataset) for split, dataset in rows.items()} == {"train": 7792, "things": 427, "pairs": 208}
    found = Counter(pair for dataset in rows.values() for pair in drawings(dataset))
    assert set(found.values()) == {1}
    hands = Counter(thing for thing, _ in found)
    assert len(hands) == 1566
    assert set(hands.values()) == {4, 5, 6}
    assert sum(count == 6 for count in hands.values()) == 1018


@pytest.mark.parametrize(
    ("split", "names", "pixels"),
    [
        ("train", "da86b6fe02c7e36f", "06efec27558e389d"),
        ("things", "a8210fff5562f92f", "c4075fee15b5ec72"),
        ("pairs", "e54bedbbc24ecdab", "3b55297f602caf7c"),
    ],
)
def test_rows_never_change(rows, images, split, names, pixels, fingerprint):
    assert fingerprint(rows[split], "caption", "hand", "group", "thing") == names
    assert hashlib.sha256(images[split].tobytes()).hexdigest()[:16] == pixels


def test_a_thing_that_is_held_out_is_held_out_in_every_hand(rows):
    assert not set(rows["things"]["thing"]) & {*rows["train"]["thing"], *rows["pairs"]["thing"]}


def test_of_a_pair_that_is_held_out_the_thing_is_in_training_and_no_sibling_is(rows):
    train, pairs = drawings(rows["train"]), drawings(rows["pairs"])
    assert len(pairs) >= 150
    for thing, hand in pairs:
        others = {other for of, other in train if of == thing}
        assert len(others) >= 3
        if hand.startswith("fluent"):
            assert not others & {"fluent", "fluent-flat"}


def test_no_drawing_that_is_held_out_is_in_training_under_another_name(rows, images):
    """Root mean square over the pixels, in grey levels; two drawings of one thing differ by 67 in the middle."""
    pixels = {split: 127.5 * part.reshape(len(part), -1) for split, part in images.items()}
    hands = {split: np.array(dataset["hand"]) for split, dataset in rows.items()}
    for split in ("things", "pairs"):
        for hand in range(len(emoji.HANDS)):
            held_out, train = (pixels[part][hands[part] == hand] for part in (split, "train"))
            squares = (held_out**2).mean(axis=1)[:, None] + (train**2).mean(axis=1) - 2 * held_out @ train.T / 3072
            assert squares.min() > 5**2, (split, emoji.HANDS[hand])


def test_each_row_is_one_drawing_with_its_name(rows):
    dataset = rows["train"]
    assert dataset.column_names == ["image", "caption", "hand", "group", "thing"]
    assert dataset.features["hand"].names == list(emoji.HANDS)
    captions = defaultdict(set)
    for thing, caption in zip(dataset["thing"], dataset["caption"], strict=True):
        captions[thing].add(caption)
    assert captions["1f34e"] == {"red apple"}
    assert all(len(found) == 1 for found in captions.values())
    assert len(set.union(*captions.values())) == len(captions)
    apples = dataset.select([n for n, thing in enumerate(dataset["thing"]) if thing == "1f34e"])
    for row in apples:
        red, green, blue = np.asarray(row["image"], dtype=int)[16, 16]
        assert red > 150 > max(green, blue)
        assert row["image"].getpixel((0, 0)) == (255, 255, 255)
    assert dataset.features["group"].int2str(apples[0]["group"]) == "Food & Drink"


def test_every_hand_has_an_author_and_a_license_that_travels_along():
    licenses = emoji.licenses()
    assert list(licenses) == list(emoji.HANDS)
    text = emoji.resources.files("ditbook.data").joinpath("emoji.LICENSE.txt").read_text("utf-8")
    for row in licenses.values():
        assert row["license"] in ("MIT", "Apache-2.0", "CC-BY-4.0")
        assert row["author"].split(", ")[-1] in text
        assert row["package"].replace("@", " ").split()[-1] in text
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_unknown_split_names_the_three():
    with pytest.raises(ValueError, match=r"the emoji have the splits 'train', 'things' and 'pairs'"):
        emoji.load("test")


def test_prompts_say_the_hand_and_the_tokenizer_knows_every_word(rows):
    words = emoji.tokenizer()
    assert len(words) == 1424  # trained weights count on it
    for dataset in rows.values():
        for name, hand in zip(dataset["caption"], dataset["hand"], strict=True):
            text = emoji.prompt(name, emoji.HANDS[hand])
            assert words.decode(words.encode(text)) == text == f" {name}, {emoji.HANDS[hand]}"
    assert words.tokens[4:8] == [" face", " with", " woman", " man"]
    assert emoji.prompt("owl") == " owl"
