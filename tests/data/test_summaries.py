import pytest
import torch

from ditbook.data import captions, summaries
from ditbook.data.scene import Scene, Thing
from ditbook.data.tokenizer import BOS, EOS, PAD

SCENE = Scene((Thing("small", "red", "star"), Thing("large", "blue", "arrow")), ("left of",))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_word_is_one_token():
    text = captions.english(SCENE)
    tokens = summaries.encode(text)
    assert len(tokens) == len(text.split())
    assert summaries.decode(tokens) == text
    assert len(summaries.tokenizer()) == 49
    with pytest.raises(ValueError, match="' cat'"):
        summaries.encode("a red cat")


def test_decoding_stops_at_the_end():
    tokens = [BOS, *summaries.encode("a star"), EOS, *summaries.encode("a moon")]
    assert summaries.decode(tokens) == "a star"
    assert summaries.decode(tokens[:3]) == "a star"
    assert summaries.decode([EOS]) == ""


def test_prompts_are_padded_on_the_left_and_targets_on_the_right():
    prompts = summaries.prompts([SCENE, Scene(SCENE.things, ("above",))])
    assert prompts.shape == (2, summaries.LONGEST_PROMPT + 1)
    assert prompts[0, 0] != PAD == prompts[1, 0]
    assert prompts[:, -1].tolist() == [BOS, BOS]
    assert summaries.decode(prompts[1].tolist()) == "a small red star above a large blue arrow"
    targets = summaries.targets(["a star", "a star and a moon"])
    assert targets.shape == (2, summaries.LONGEST)
    assert targets[0].tolist() == [*summaries.encode("a star"), EOS, *[PAD] * 11]
    with pytest.raises(ValueError, match="a summary of 15 tokens; 14 is the longest"):
        summaries.targets([" ".join(["please"] * 14)])


def test_splits_share_no_scene():
    seen, held_out = (summaries.sample_scenes(300, generator(), held_out=kept) for kept in (False, True))
    assert all(len(scene.things) == 2 for scene in seen + held_out)
    assert not set(seen) & set(held_out)
    assert all(map(captions.held_out, held_out))
    assert summaries.sample_scenes(300, generator()) == seen


def test_demonstrations_have_the_habits_they_should():
    scenes = summaries.sample_scenes(4000, generator())
    texts = summaries.demonstrations(scenes, generator(1))
    assert texts == summaries.demonstrations(scenes, generator(1))
    summaries.targets(texts)  # none is too long, every word is known
    assert max(len(summaries.encode(text)) for text in texts) == 10
    for (before, after), weight in summaries.MANNERS.items():
        if before or after:
            having = sum(text.startswith(before) and text.endswith(after) for text in texts) / len(texts)
            assert having == pytest.approx(weight / 20, abs=0.02), (before, after)
    polite = ("please", "kindly", "dear", "thank")
    assert max(sum(text.count(word) for word in polite) for text in texts) == 1
