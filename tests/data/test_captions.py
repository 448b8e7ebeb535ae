import json
import re

import pytest
import torch

from ditbook.data import captions
from ditbook.data.captions import english, french, summary
from ditbook.data.scene import COLOURS, MAX_THINGS, RELATIONS, SHAPES, SIZES, Scene, Thing

STAR, SQUARE = Thing("small", "red", "star"), Thing("large", "blue", "square")
TWO = Scene((STAR, SQUARE), ("above",))


@pytest.fixture(scope="module")
def scenes():
    generator = torch.Generator().manual_seed(0)
    return [captions.sample(generator) for _ in range(3000)]


def test_a_scene_in_every_language():
    assert english(TWO) == "a small red star above a large blue square"
    assert french(TWO) == "une petite étoile rouge au-dessus d'un grand carré bleu"
    assert summary(TWO) == "a star and a square"
    three = Scene((SQUARE, STAR, Thing("large", "orange", "square")), ("left of", "below"))
    assert english(three) == "a large blue square left of a small red star below a large orange square"
    assert french(three) == "un grand carré bleu à gauche d'une petite étoile rouge sous un grand carré orange"
    assert summary(three) == "two squares and a star"


def test_what_is_written_is_read(scenes):
    for scene in scenes:
        assert captions.parse_english(english(scene)) == scene
        assert captions.parse_french(french(scene)) == scene
        assert Scene.from_json(scene.to_json()) == scene


@pytest.mark.parametrize(
    ("thing", "phrase"),
    [
        (("small", "green", "circle"), "un petit cercle vert"),
        (("small", "green", "cross"), "une petite croix verte"),
        (("large", "white", "moon"), "une grande lune blanche"),
        (("large", "white", "diamond"), "un grand losange blanc"),
        (("large", "purple", "arrow"), "une grande flèche violette"),
        (("small", "grey", "star"), "une petite étoile grise"),
        (("small", "grey", "triangle"), "un petit triangle gris"),
        (("small", "orange", "star"), "une petite étoile orange"),  # a fruit: invariable
        (("large", "yellow", "moon"), "une grande lune jaune"),
    ],
)
def test_french_agrees_with_the_noun(thing, phrase):
    assert french(Scene((Thing(*thing),))) == phrase


def test_de_is_elided_before_the_article_and_sous_takes_none(scenes):
    for scene in scenes:
        text = french(scene)
        assert not re.search(r"\bde\b", text)
        assert len(re.findall(r"d'une? ", text)) == len(scene.relations) - scene.relations.count("below")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a small redd star", r"word 3 is 'redd'; expected a colour: red, green"),
        ("the small red star", r"word 1 is 'the'; expected the article: a$"),
        ("a red small star", r"word 2 is 'red'; expected a size: small, large"),
        ("a small red", r"the sentence ends at word 3; expected a shape: circle"),
        ("a small red star left above", r"word 6 is 'above'; expected a relation: of"),
        ("a small red star left of", r"the sentence ends at word 6; expected the article"),
        ("a small red star and a small red star", r"word 5 is 'and'; expected a relation: above, below, left, right"),
        ("a  small red star", r"word 2 is ''; expected a size"),
        ("a small red star ", r"word 5 is ''; expected a relation"),
        ("A small red star", r"word 1 is 'A'"),
        ("", r"word 1 is ''; expected the article"),
        (" above ".join(["a small red star"] * 6), r"word 25 is 'above'; a scene ends after 5 things"),
    ],
)
def test_other_english_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        captions.parse_english(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("une petit étoile rouge", r"word 2 is 'petit'; expected a feminine size: petite, grande"),
        ("un petit étoile rouge", r"word 3 is 'étoile'; expected a masculine noun: cercle, carré"),
        ("une petite étoile vert", r"word 4 is 'vert'; expected a feminine colour: rouge, verte"),
        ("une petite rouge étoile", r"word 3 is 'rouge'; expected a feminine noun"),
        ("un petit cercle vert au-dessus de un grand carré bleu", r"word 6 is 'de'; expected a relation: d'"),
        ("un petit cercle vert sous d'un grand carré bleu", r"word 6 is \"d'\"; expected an article: un, une"),
        ("un petit cercle vert à d'un grand carré bleu", r"word 6 is \"d'\"; expected a relation: gauche, droite"),
        ("un petit cercle vert à gauche d' un grand carré bleu", r"word 8 is ''; expected an article"),
    ],
)
def test_other_french_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        captions.parse_french(text)


def test_changing_any_word_is_refused_or_another_scene(scenes):
    """No sentence has two readings, and no two scenes have one sentence."""
    for say, parse in ((english, captions.parse_english), (french, captions.parse_french)):
        for scene in scenes[:200]:
            words = say(scene).split(" ")
            for at in range(len(words)):
                changed = " ".join([*words[:at], "zut", *words[at + 1 :]])
                with pytest.raises(ValueError, match=rf"word {at + 1 + ' '.join(words[:at]).count(chr(39))} is"):
                    parse(changed)
    assert len({english(scene) for scene in scenes}) == len({french(scene) for scene in scenes}) == len(set(scenes))


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (["star"], "a star"),
        (["arrow"], "an arrow"),
        (["cross"] * 5, "five crosses"),
        (["star", "moon", "star"], "two stars and a moon"),
        (["moon", "arrow", "star"], "a moon, an arrow and a star"),
        (["moon", "star", "moon", "star", "arrow"], "two moons, two stars and an arrow"),
    ],
)
def test_summary_counts_in_the_order_of_first_mention(shapes, text):
    things = tuple(Thing("small", "red", shape) for shape in shapes)
    assert summary(Scene(things, ("above",) * (len(things) - 1))) == text


def test_sampling_reaches_every_word_about_equally(scenes):
    things = [thing for scene in scenes for thing in scene.things]
    for words, found in (
        (SIZES, [thing.size for thing in things]),
        (COLOURS, [thing.colour for thing in things]),
        (SHAPES, [thing.shape for thing in things]),
        (RELATIONS, [relation for scene in scenes for relation in scene.relations]),
        (range(1, MAX_THINGS + 1), [len(scene.things) for scene in scenes]),
    ):
        assert set(found) == set(words)
        assert all(abs(found.count(word) * len(words) / len(found) - 1) < 0.15 for word in words)
    again = torch.Generator().manual_seed(0)
    assert [captions.sample(again) for _ in range(5)] == scenes[:5]
    assert {len(captions.sample(again, things=4).things) for _ in range(20)} == {4}


def test_no_scene_is_in_both_splits(scenes):
    """The split is a function of the scene alone; what is loaded belongs to the split that was named."""
    rows = {split: captions.load(split, size=2000, seed=1)["scene"] for split in captions.SPLITS}
    for split, texts in rows.items():
        assert {captions.held_out(Scene.from_json(text)) for text in texts} == {split == "validation"}
    assert not set(rows["train"]) & set(rows["validation"])
    assert 0.07 < sum(map(captions.held_out, scenes)) / len(scenes) < 0.13
    assert not any(captions.held_out(Scene((thing,))) for thing in (STAR, SQUARE))  # on every machine


@pytest.mark.parametrize(
    ("split", "seed", "rows"),
    [("train", 0, "1a2453a8741c76d6"), ("validation", 0, "6d68d72acaf793ea"), ("validation", 1, "9b07fcd3bfdc1f0a")],
)
def test_a_seed_gives_the_same_rows_on_every_machine(split, seed, rows, fingerprint):
    assert fingerprint(captions.load(split, 3000, seed), "caption", "french", "summary", "scene") == rows


def test_rows_say_one_scene_in_every_language():
    rows = captions.load("validation", size=50)
    assert rows.column_names == ["caption", "french", "summary", "scene"]
    assert len(rows) == 50
    for row in rows:
        scene = Scene.from_json(row["scene"])
        assert [row["caption"], row["french"], row["summary"]] == [english(scene), french(scene), summary(scene)]
        assert set(json.loads(row["scene"])) == {"things", "relations"}
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train' and 'validation'"):
        captions.load("test")
    with pytest.raises(ValueError, match="must be positive, not 0"):
        captions.load(size=0)


def test_tokenizers_know_every_word_and_never_change(scenes):
    sizes = {language: len(captions.tokenizer(language)) for language in captions.LANGUAGES}
    assert sizes == {"english": 29, "french": 39, "summary": 33}
    assert captions.tokenizer("french").tokens[4:10] == [" rouge", "un", " petit", " d'", " cercle", " au-dessus"]
    for say, language in ((english, "english"), (french, "french"), (summary, "summary")):
        tokenizer = captions.tokenizer(language)
        for scene in scenes:
            assert tokenizer.decode(tokenizer.encode(say(scene))) == say(scene)
    with pytest.raises(ValueError, match="no language 'german'; there are english, french, summary"):
        captions.tokenizer("german")
