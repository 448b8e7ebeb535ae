"""Text to image: what the models are trained on, the loss, and how they are measured."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ditbook import data, pipeline, weights
from ditbook.data import captions, emoji, shapes
from ditbook.data.scene import Layout, Scene
from ditbook.diffusion.flow import Flow, flow_loss, logit_normal, uniform_times
from ditbook.judges import composition
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.models.text_dit import TextDiT, TextDiTConfig
from ditbook.training import recipes
from ditbook.training.loop import Context
from ditbook.training.tasks import text_dit as task
from ditbook.training.tasks.emoji import embedded
from ditbook.training.tasks.text_dit import DrawEmoji, DrawScenes

CODER = AutoencoderConfig(latent_channels=3, widths=(8, 8, 8), blocks=1, groups=4, scale=0.5)
SIZES = {"patch": 16, "width": 16, "depth": 1, "heads": 2, "text_width": 16, "text_depth": 1, "text_heads": 2}
TOWERS = CLIPConfig(size=32, vocabulary=1424, context=12, joint=24, **SIZES)


def randomised(model, std=0.3):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval().requires_grad_(False)


def drawer(**changes):
    sizes = {"channels": 3, "width": 16, "depth": 1, "heads": 2, "text_width": 16, "text_depth": 1}
    return randomised(TextDiT(TextDiTConfig(**{**sizes, **changes})), 0.1)


def context():
    return Context(0, torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Some rows of each split in place of all."""
    load = emoji.load
    rows = {"train": range(0, 7792, 60), "pairs": range(0, 208, 8)}
    monkeypatch.setattr(emoji, "load", lambda split: load(split).select(rows[split]))


@pytest.fixture
def small(monkeypatch):
    """A small autoencoder and a small CLIP in place of trained weights."""
    coder, load = randomised(Autoencoder(CODER)), weights.load
    models = {"autoencoder-emoji": coder, "autoencoder-shapes": coder, "clip-emoji": randomised(CLIP(TOWERS))}
    monkeypatch.setattr(weights, "load", lambda name: models.get(name) or load(name))
    return models


EMOJI = {"clip": "clip-emoji", "latents_of": "autoencoder-emoji"}
SCENES = {"layouts": 60, "latents_of": "autoencoder-shapes"}


def test_emoji_are_given_by_their_names_and_hands(small):
    given, dataset, words = DrawEmoji(**EMOJI), emoji.load("train"), emoji.tokenizer()
    batch = given.data()
    assert [words.decode(row) for row in batch["tokens"].tolist()] == [f" {name}" for name in dataset["caption"]]
    assert batch["y"].tolist() == list(dataset["hand"])
    mean, std = small["autoencoder-emoji"].encode(data.tensors(dataset)["image"])
    torch.testing.assert_close(batch["mean"], mean)
    torch.testing.assert_close(batch["std"], std)


def test_the_loss_is_that_of_a_flow_on_latents_sampled_anew_with_all_that_is_given(small):
    given, model = DrawEmoji(**EMOJI), drawer(num_classes=6)
    batch = {name: value[:40] for name, value in given.data().items()}
    generator = torch.Generator().manual_seed(0)
    latents = small["autoencoder-emoji"].scaled_latents(batch["mean"], batch["std"], generator)
    wanted = flow_loss(
        model, Flow(uniform_times(1000)), latents, generator, times=logit_normal, dropout=0.1, tokens=batch["tokens"],
        y=batch["y"],
    )  # fmt: skip
    torch.testing.assert_close(given.loss(model, batch, context()), wanted)


@pytest.mark.parametrize("name", ["text-dit-emoji", "text-dit-scenes"])
def test_the_sizes_of_a_recipe_are_those_of_its_words_and_latents(name):
    table = recipes.load(name).table
    model, coder = table["model"], recipes.load(table["latents_of"]).table["model"]
    assert model["channels"] == coder["latent_channels"]
    if name == "text-dit-emoji":
        assert (model["vocabulary"], model["num_classes"]) == (len(emoji.tokenizer()), len(emoji.HANDS))
    else:
        assert model["vocabulary"] == len(captions.tokenizer("english"))
        three = [layout.scene for layout in shapes.sample(50, torch.Generator().manual_seed(0), things=3)]
        assert task.scene_tokens(three).shape[1] == model["context"]


def test_scenes_are_given_by_their_captions_and_new_pairs_never_occur(small):
    given, words = DrawScenes(**SCENES), captions.tokenizer("english")
    batch = given.data()
    scenes = [captions.parse_english(words.decode(row)) for row in batch["tokens"].tolist()]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {(it.colour, it.shape) for scene in scenes for it in scene.things} <= set(shapes.SEEN_PAIRS)
    every = shapes.sample(60, torch.Generator().manual_seed(0), pairs=shapes.SEEN_PAIRS)
    placed = [layout for layout in map(task.on_grid, every) if layout is not None]
    kept = [layout for layout in placed if not shapes.held_out(layout)]
    assert 30 < len(kept) < len(placed) < 60
    assert scenes == [layout.scene for layout in kept]
    mean, _ = small["autoencoder-shapes"].encode(shapes.tensors(kept))
    torch.testing.assert_close(batch["mean"], mean)


def test_things_go_to_the_nearest_places_of_a_grid_or_are_left_out():
    layouts = shapes.sample(300, torch.Generator().manual_seed(0))
    for layout, found in zip(layouts, map(task.on_grid, layouts), strict=True):
        if found is not None:
            assert found.scene == layout.scene
            for before, after in zip(layout.places, found.places, strict=True):
                assert all(b % 4 == 0 and abs(a - b) <= 2 for a, b in zip(before, after, strict=True))
        else:
            assert len(layout.places) > 1  # a single thing always fits


def test_images_are_guided_samples_decoded(small):
    model, coder = drawer(num_classes=6), small["autoencoder-emoji"]
    condition = {name: value[:3] for name, value in task.emoji_condition("train").items()}
    process = pipeline.process(model, None, "straight")

    def images(seed, **options):
        return task.generate(
            model, process, coder, **condition, generator=torch.Generator().manual_seed(seed), **options
        )

    found = images(1, guidance=3.0, steps=2)
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for now, after in ((1.0, 0.5), (0.5, 0.0)):
        t = torch.full((3,), 1000 * now)
        with_text, without = model(x, t, **condition), model(x, t, **model.null_condition(**condition))
        x = x + (after - now) * (without + 3 * (with_text - without))
    torch.testing.assert_close(found, coder.from_latents(x).clamp(-1, 1))
    assert not torch.equal(images(2, guidance=3.0, steps=2), found)
    assert not torch.equal(images(1, guidance=1.0, steps=2), found)


@pytest.mark.parametrize("classes", [0, 6])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_texts_and_classes_are_moved_to_the_model(small, classes, guidance):
    """On meta, where a tensor from elsewhere raises."""
    model, coder = drawer(num_classes=classes).to("meta"), small["autoencoder-emoji"].to("meta")
    tokens, y = torch.tensor([[1, 5, 2]] * 3), torch.arange(3) if classes else None
    process, generator = pipeline.process(model, None, "straight"), torch.Generator().manual_seed(0)
    found = task.generate(model, process, coder, tokens, y, generator, guidance=guidance, steps=2)
    assert (found.shape, found.device.type) == ((3, 3, 32, 32), "meta")


def test_emoji_are_measured_among_the_drawings_of_the_hand(small, monkeypatch):
    given, judge, model = DrawEmoji(**EMOJI), small["clip-emoji"], drawer(num_classes=6)
    train, pairs = (data.tensors(emoji.load(split))["image"] for split in ("train", "pairs"))
    names = [f"recall at {k} of {len(pairs)} {kind} pairs" for kind in ("held-out", "seen") for k in (1, 5)]
    rows = torch.linspace(0, len(train) - 1, len(pairs)).long()
    asked = {}

    def perfect(model, process, coder, tokens, y, generator):
        true = pairs if len(asked) == 0 else train[rows]
        asked[len(asked)] = tokens, y
        return true

    monkeypatch.setattr(task, "generate", perfect)
    assert given.evaluate(model) == dict.fromkeys(names, 1.0)
    for found, wanted in zip(asked.values(), ("pairs", "train"), strict=True):
        condition = task.emoji_condition(wanted)
        chosen = slice(None) if wanted == "pairs" else rows
        assert torch.equal(found[0], condition["tokens"][chosen])
        assert torch.equal(found[1], condition["y"][chosen])
    monkeypatch.setattr(task, "generate", lambda *given: pairs.roll(1, 0))
    vectors, known = embedded(judge, pairs), embedded(judge, train)
    good, hands = 0, list(emoji.load("train")["hand"])
    for k, (vector, row) in enumerate(zip(vectors.roll(1, 0), emoji.load("pairs"), strict=True)):
        same_hand = [v for v, other in zip(known, hands, strict=True) if other == row["hand"]]
        good += all(vector @ other <= vector @ vectors[k] + 1e-6 for other in same_hand)
    assert given.evaluate(model)[names[0]] == pytest.approx(good / len(pairs), abs=1e-4)


def test_scenes_are_measured_by_task_with_seen_pairs_and_new_ones(small, monkeypatch):
    given, words = DrawScenes(**SCENES), captions.tokenizer("english")
    monkeypatch.setattr(task, "PER_TASK", 5)
    every = shapes.sample(20_000, torch.Generator().manual_seed(5))
    shown = {layout.scene: layout for layout in every if len(layout.places) > 1}
    asked = []

    def drawn(model, process, coder, tokens, y, generator):
        """True images of some scenes; for the others the first thing alone, of the wrong size."""
        scenes = [captions.parse_english(words.decode(row)) for row in tokens.tolist()]
        asked.append(scenes)
        sizes = {"small": "large", "large": "small"}
        first = [replace(scene.things[0], size=sizes[scene.things[0].size]) for scene in scenes]
        wrong = [Layout(Scene((thing,)), ((16, 16),)) for thing in first]
        return shapes.tensors([shown.get(scene, other) for scene, other in zip(scenes, wrong, strict=True)])

    monkeypatch.setattr(task, "generate", drawn)
    found = given.evaluate(drawer(vocabulary=29, context=18))
    assert len(found) == 14
    assert found["single thing, 5 of seen pairs"] == found["color, 5 of new pairs"] == 1
    assert found["counting, 5 of new pairs"] < 0.5
    for kind, part, pairs in (("seen", asked[:6], shapes.SEEN_PAIRS), ("new", asked[6:], shapes.NEW_PAIRS)):
        true = [scene in shown for scenes in part for scene in scenes]
        assert {(it.colour, it.shape) for scenes in part for scene in scenes for it in scene.things} <= set(pairs)
        assert found[f"all that is said, 30 of {kind} pairs"] == pytest.approx(sum(true) / 30, abs=1e-4)
        for name, scenes in zip(composition.TASKS, part, strict=True):
            right = [len(scene.things) == 1 or scene in shown for scene in scenes]
            assert found[f"{name}, 5 of {kind} pairs"] == pytest.approx(sum(right) / 5, abs=1e-4)
