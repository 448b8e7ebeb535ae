from pydoc_data.topics import topics

import pytest

from ditbook.data import python_docs as manual


def test_the_splits_hold_all_topics_once():
    train, validation = manual.load("train"), manual.load("validation")
    assert sorted([*train["topic"], *validation["topic"]]) == sorted(topics)
    assert len(validation) >= 5
    assert dict(zip(validation["topic"], validation["text"], strict=True)).items() <= topics.items()
    sizes = [sum(map(len, part["text"])) for part in (train, validation)]
    assert sizes[0] > 300_000
    assert 0.05 < sizes[1] / sum(sizes) < 0.25


def test_no_paragraph_of_a_sentence_is_in_both_splits():
    """The manual repeats whole sections under several topics."""
    parts = [
        {" ".join(part.split()) for text in manual.load(split)["text"] for part in text.split("\n\n")}
        for split in ("train", "validation")
    ]
    assert not [part for part in parts[0] & parts[1] if len(part) >= 20]


def test_only_repeated_paragraphs_are_missing():
    held_out = {" ".join(part.split()) for text in manual.load("validation")["text"] for part in text.split("\n\n")}
    for topic, text in zip(*(manual.load("train")[name] for name in ("topic", "text")), strict=True):
        left_out = set(topics[topic].split("\n\n")) - set(text.split("\n\n"))
        assert {" ".join(part.split()) for part in left_out} <= held_out


def test_unknown_split_names_the_two():
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train' and 'validation'"):
        manual.load("test")
