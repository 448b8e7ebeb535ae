"""The recipes' tasks: what they train on, the loss, and what the trained model is measured on."""

import tomllib

import pytest
import torch
import torch.nn.functional as F
import train_weights

from ditbook import data, weights
from ditbook.data import captions, digits, shapes
from ditbook.data.tokenizer import BOS, EOS, PAD
from ditbook.diffusion import schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.models import autoencoder
from ditbook.models.dit import DiT, DiTConfig

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


def test_clip_is_taught_seen_pairs_with_their_captions():
    task = train_weights.clip_task({"layouts": 60})
    words, seen = captions.tokenizer("english"), {" ".join(pair) for pair in shapes.SEEN_PAIRS}
    texts = [words.decode(row) for row in task.batch["tokens"].tolist()]
    assert len(texts) < 60  # some are held out
    for text in texts:
        assert {f"{thing.colour} {thing.shape}" for thing in captions.parse_english(text).things} <= seen
    rows = torch.arange(len(texts))
    assert (task.batch["tokens"][rows, task.batch["end"]] == EOS).all()


def test_the_scale_of_clip_is_kept_in_its_limits_while_it_is_taught():
    task = train_weights.clip_task({"layouts": 20})
    model = weights.build("clip", RECIPES["clip-shapes"]["model"])
    model.log_scale.data.fill_(9.0)
    loss = task.loss(model, {key: value[:4] for key, value in task.batch.items()}, torch.Generator())
    loss.backward()
    assert model.log_scale.exp().item() == pytest.approx(100)
    assert model.log_scale.grad.item() != 0


def test_the_prompts_of_a_class_name_its_colour_and_shape():
    model = weights.load("clip-shapes")
    vectors = train_weights.pair_vectors(model)
    tokens, end = train_weights.prompts(["a small grey arrow", "a large grey arrow"])
    mean = F.normalize(model.encode_text(tokens, end).mean(dim=0), dim=0)
    torch.testing.assert_close(vectors[shapes.PAIRS.index(("grey", "arrow"))], mean)


@pytest.mark.equation(
    "15.6", of="ditbook.models.autoencoder.sample_latent", against="the loss of chapter 10 on scaled draws"
)
def test_latents_are_drawn_anew_and_scaled():
    recipe = {"layouts": 6, "latents_of": "autoencoder-shapes"}
    task = train_weights.scenes_task(recipe)
    coder = weights.load("autoencoder-shapes")
    assert task.batch["mean"].shape == task.batch["std"].shape == (6, 4, 8, 8)
    model = weights.load("dit-shapes-latent")
    drawn = torch.Generator().manual_seed(3)
    x = coder.config.scale * autoencoder.sample_latent(task.batch["mean"], task.batch["std"], drawn)
    diffusion = GaussianDiffusion(schedules.linear())
    expected = train_weights.noise_loss(model, diffusion, x, drawn, task.batch["label"])
    torch.testing.assert_close(task.loss(model, task.batch, torch.Generator().manual_seed(3)), expected)


@pytest.mark.equation(
    "15.7", of="ditbook.models.autoencoder.Autoencoder.decode", against="a model that always predicts the same latent"
)
def test_pictures_painted_in_latents_are_decoded_at_their_own_size():
    coder, diffusion = weights.load("autoencoder-shapes"), GaussianDiffusion(schedules.linear())
    latent = torch.full((1, 4, 8, 8), 0.3)
    always = Always(coder.config.scale * latent)
    painted, y = train_weights.paint(always, diffusion, coder, "x_start", each=1)
    assert y.tolist() == list(range(64))
    with torch.no_grad():
        torch.testing.assert_close(painted, coder.decode(latent).clamp(-1, 1).expand(64, -1, -1, -1))


class Always(torch.nn.Module):
    """A model that predicts the same clean latent whatever it sees."""

    def __init__(self, x_start):
        super().__init__()
        self.x_start, self.config = x_start, weights.load("dit-shapes-latent").config

    def forward(self, x, t, y):
        return self.x_start.expand(len(x), -1, -1, -1)


def test_what_a_recipe_predicts_is_what_is_learned():
    model = DiT(DiTConfig(32, 3, 8, 32, 1, 4, num_classes=64, learn_sigma=False))
    tasks = [train_weights.scenes_task({"layouts": 4, "predicts": predicts}) for predicts in ("eps", "x_start")]
    found = [task.loss(model, task.batch, torch.Generator().manual_seed(0)).item() for task in tasks]
    x, generator = train_weights.pixels(tasks[0].batch["image"]), torch.Generator().manual_seed(0)
    torch.randint(1000, (4,), generator=generator)
    eps = torch.randn(x.shape, generator=generator)
    assert found == pytest.approx([eps.square().mean().item(), x.square().mean().item()])  # an untrained DiT answers 0


def test_painted_pictures_are_read_and_compared_with_their_class():
    layouts = shapes.sample(40, torch.Generator().manual_seed(0), things=1)
    images = train_weights.pixels(torch.from_numpy(shapes.render(layouts)))
    y = torch.tensor([train_weights.pair_of(layout) for layout in layouts])
    assert train_weights.shown(images, y) == 1
    assert train_weights.shown(images, (y + 1) % 64) == 0
    assert train_weights.shown(-torch.ones(40, 3, 32, 32), y) == 0
