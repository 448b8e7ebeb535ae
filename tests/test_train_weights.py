"""The recipes' tasks: what they train on, the loss, and what the trained model is measured on."""

import tomllib

import pytest
import torch
import torch.nn.functional as F
import train_weights

from ditbook import data, weights
from ditbook.data import captions, digits
from ditbook.data.tokenizer import BOS, EOS, PAD
from ditbook.diffusion import schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

RECIPES = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in train_weights.FOLDER.glob("*.toml")}
CAPTIONS = {"writes": "french", "label_smoothing": 0.0}
load = captions.load


@pytest.fixture
def few(monkeypatch):
    """Forty captions in place of thousands; the list says which splits were asked for."""
    asked = []
    monkeypatch.setattr(captions, "load", lambda split, size, seed: asked.append(split) or load(split, 40, seed))
    return asked


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_its_task_and_builds_its_model(name):
    recipe = RECIPES[name]
    assert recipe["task"] in train_weights.TASKS
    if recipe["task"] == "captions":
        languages = {"source": "english", "target": recipe["writes"]}
        assert {side: recipe["model"][side] for side in languages} == {
            side: len(captions.tokenizer(language)) for side, language in languages.items()
        }
    weights.build(recipe["family"], recipe["model"])


def test_captions_are_taught_word_by_word_on_training_scenes_alone(few):
    task = train_weights.captions_task(CAPTIONS)
    assert few == ["train"]
    target = task.batch["target"]
    assert (target[:, 0] == BOS).all()
    assert (target == EOS).sum(dim=1).tolist() == [1] * 40
    logits = torch.randn(40, target.shape[1] - 1, 39, generator=torch.Generator().manual_seed(0))
    seen = []
    loss = task.loss(lambda source, before: seen.append((source, before)) or logits, task.batch, torch.Generator())
    wanted = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)
    torch.testing.assert_close(loss, wanted)
    assert torch.equal(seen[0][0], task.batch["source"])
    assert torch.equal(seen[0][1], target[:, :-1])


def test_captions_are_measured_on_held_out_scenes_alone(few):
    task = train_weights.captions_task(CAPTIONS)
    (without,), (looking,) = (
        task.measure(weights.load(f"translation-{kind}")).values() for kind in ("none", "additive")
    )
    assert 0 < without < looking == 1
    assert few == ["train", "validation", "validation"]


@pytest.mark.parametrize("name", ["dit-digits", "unet-digits"])
def test_the_digits_task_is_the_digits_loss_on_the_training_digits(name):
    recipe = RECIPES[name]
    torch.manual_seed(0)
    model = weights.build(recipe["family"], recipe["model"])
    task = train_weights.TASKS[recipe["task"]](recipe)
    train = data.tensors(digits.load("train"))
    assert all(torch.equal(task.batch[key], train[key]) for key in train)
    plain = train_weights.digits_loss(recipe["family"], GaussianDiffusion(schedules.linear()))
    batch = {key: value[:8] for key, value in train.items()}
    losses = [one(model, batch, torch.Generator().manual_seed(1)) for one in (task.loss, plain)]
    assert torch.equal(*losses)
