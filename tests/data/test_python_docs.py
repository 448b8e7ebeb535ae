import hashlib
import platform

import pytest

from ditbook.data import python_docs


def test_the_text_is_this_one():
    """Chapters, weights and stored results depend on every letter."""
    text = "".join(f"{topic}\n{text}" for topic, text in python_docs.topics().items())
    assert len(text) == 465_771
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "bfb736cc46952380aa8855488567c768440b17b5f4488ced928dc84298e80cc2"
    )


@pytest.mark.skipif(platform.python_version() != python_docs.PYTHON, reason="another Python carries another manual")
def test_it_is_the_manual_of_that_python():
    from pydoc_data.topics import topics

    assert python_docs.topics() == topics


def test_the_licence_travels_with_the_text():
    licence = python_docs.resources.files("ditbook.data").joinpath("python_docs.LICENSE.txt").read_text("utf-8")
    assert "2023 Python Software Foundation; All Rights Reserved" in licence
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licence


def test_the_splits_hold_all_topics_once():
    train, validation, topics = python_docs.load("train"), python_docs.load("validation"), python_docs.topics()
    assert sorted([*train["topic"], *validation["topic"]]) == sorted(topics)
    assert (len(train), len(validation)) == (68, 11)
    assert dict(zip(validation["topic"], validation["text"], strict=True)).items() <= topics.items()
    sizes = [sum(map(len, part["text"])) for part in (train, validation)]
    assert sizes[0] > 300_000
    assert 0.05 < sizes[1] / sum(sizes) < 0.25


@pytest.mark.parametrize(("split", "rows"), [("train", "0aa423a73c3d26d6"), ("validation", "d4e62462150dc89a")])
def test_paragraphs_and_splits_never_change(split, rows, fingerprint):
    assert fingerprint(python_docs.load(split), "topic", "text") == rows


def test_no_paragraph_of_a_sentence_is_in_both_splits():
    """The manual repeats whole sections under several topics."""
    parts = [
        {" ".join(part.split()) for text in python_docs.load(split)["text"] for part in text.split("\n\n")}
        for split in ("train", "validation")
    ]
    assert not [part for part in parts[0] & parts[1] if len(part) >= 20]


def test_only_repeated_paragraphs_are_missing():
    topics, rows = python_docs.topics(), python_docs.load("validation")
    held_out = {" ".join(part.split()) for text in rows["text"] for part in text.split("\n\n")}
    for topic, text in zip(*(python_docs.load("train")[name] for name in ("topic", "text")), strict=True):
        left_out = set(topics[topic].split("\n\n")) - set(text.split("\n\n"))
        assert {" ".join(part.split()) for part in left_out} <= held_out


def test_unknown_split_names_the_two():
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train' and 'validation'"):
        python_docs.load("test")
