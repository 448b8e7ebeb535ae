import pytest
import torch

from ditbook.data import captions, questions, shapes
from ditbook.data.scene import RELATIONS, holds

GROUPS = ("Animals & Nature", "Food & Drink")


def test_questions_of_two_things_name_what_is_unique():
    scene = captions.parse_english("a small red star left of a large red square")
    asked = dict(questions.of_scene(scene))
    assert asked["which colour is the star ?"] == "red"
    assert asked["which size is the square ?"] == "large"
    assert asked["which shape is left of the square ?"] == "star"
    assert asked["which shape is right of the star ?"] == "square"
    assert "which shape is red ?" not in asked  # two are
    alike = captions.parse_english("a small red star above a large blue star")
    assert dict(questions.of_scene(alike)) == {
        "which shape is red ?": "star",
        "which shape is blue ?": "star",
    }


def test_every_answer_is_true_of_the_layout():
    for layout in shapes.sample(200, torch.Generator().manual_seed(0), things=2):
        things = list(zip(layout.scene.things, layout.places, strict=True))
        for question, answer in questions.of_scene(layout.scene):
            said = next((said for said in RELATIONS if f" {said} the " in question), None)
            if said:
                (place,) = [where for it, where in things if it.shape == answer]
                (other,) = [where for it, where in things if it.shape == question.split()[-2]]
                assert holds(said, place, other)


def test_one_question_of_each_list_is_chosen():
    lists = [[("what is it ?", "red apple"), ("whose hand ?", "noto")]] * 300
    chosen = questions.choose(lists, torch.Generator().manual_seed(0))
    assert set(chosen) == {("what is it ?", "red apple"), ("whose hand ?", "noto")}
    assert 100 < chosen.count(("what is it ?", "red apple")) < 200


def test_the_tokenizer_knows_all_words_and_stays_the_same():
    words = questions.scene_tokenizer()
    assert len(words) == 36
    for layout in shapes.sample(300, torch.Generator().manual_seed(1), things=2):
        texts = [captions.english(layout.scene), *(" ".join(pair) for pair in questions.of_scene(layout.scene))]
        assert all(words.decode(words.encode(text)) == text for text in texts)


def test_emoji_rows_are_those_of_the_groups():
    assert len(questions.emoji_rows("train", GROUPS)) == 1431
    assert ("red apple", "twemoji") in questions.emoji_rows("train", GROUPS) + questions.emoji_rows("pairs", GROUPS)
    with pytest.raises(ValueError, match="no group 'Fish'; there are Smileys & Emotion"):
        questions.emoji_rows("train", ("Fish",))
