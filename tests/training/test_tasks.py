"""The tasks of recipes: what they train on, the loss, and how the trained model is measured."""

import pytest
import torch
import torch.nn.functional as F

from ditbook import data, pipeline, weights
from ditbook.data import captions, digits, mnist, shapes
from ditbook.data.tokenizer import BOS, EOS, PAD
from ditbook.diffusion import losses, schedules
from ditbook.diffusion.flow import Flow, flow_loss, uniform_times
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.models.autoencoder import sample_latent
from ditbook.models.dit import DiT, DiTConfig
from ditbook.objectives.autoencoding import autoencoder_loss
from ditbook.training import recipes
from ditbook.training.loop import Context
from ditbook.training.tasks import digits as task_of_digits
from ditbook.training.tasks.autoencoder import Reconstruct
from ditbook.training.tasks.captions import Captions
from ditbook.training.tasks.clip import MatchCaptions, pair_vectors, prompts
from ditbook.training.tasks.digits import Digits
from ditbook.training.tasks.scene_reader import ReadScenes
from ditbook.training.tasks.scenes import Scenes, accuracy_of_samples

TRANSLATE = Captions(writes="french", label_smoothing=0.0)


def context(seed=0):
    return Context(0, torch.Generator().manual_seed(seed))


def first(batch, count):
    return {name: tensor[:count] for name, tensor in batch.items()}


def test_captions_are_trained_token_by_token_on_training_scenes_alone(few):
    batch = TRANSLATE.data()
    assert few == ["train"]
    target = batch["target"]
    assert (target[:, 0] == BOS).all()
    assert (target == EOS).sum(dim=1).tolist() == [1] * 40
    logits = torch.randn(40, target.shape[1] - 1, 39, generator=torch.Generator().manual_seed(0))
    seen = []
    loss = TRANSLATE.loss(lambda source, before: seen.append((source, before)) or logits, batch, context())
    wanted = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)
    torch.testing.assert_close(loss, wanted)
    assert torch.equal(seen[0][0], batch["source"])
    assert torch.equal(seen[0][1], target[:, :-1])
    smooth = Captions(writes="french", label_smoothing=0.1).loss(lambda *_: logits, batch, context())
    assert smooth != loss


def test_captions_are_measured_on_held_out_scenes_alone(few):
    (without,), (attending,) = (
        TRANSLATE.evaluate(weights.load(f"translation-{kind}")).values() for kind in ("none", "additive")
    )
    assert 0 < without < attending == 1
    assert few == ["validation", "validation"]


def test_the_digits_are_trained_on_the_train_split_by_the_loss_of_the_process():
    train = data.tensors(digits.load("train"))
    batch = first(train, 8)
    for name, condition in (("dit-digits", {"y": batch["label"], "dropout": 0.1}), ("unet-digits", {})):
        recipe = recipes.load(name)
        torch.manual_seed(0)
        model = weights.build(recipe.table["family"], recipe.table["model"])
        trained_on = recipe.task.data()
        assert all(torch.equal(trained_on[key], train[key]) for key in train)
        diffusion = GaussianDiffusion(schedules.linear(), learn_sigma=name == "dit-digits")
        wanted = losses.denoising_loss(model, diffusion, batch["image"], context(1).generator, **condition)
        assert torch.equal(recipe.task.loss(model, batch, context(1)), wanted)


def test_the_held_out_error_is_taken_of_the_noise_in_validation_digits():
    real = data.tensors(digits.load("validation"))["image"]
    seen = []

    class Silent(torch.nn.Module):
        config = weights.load("unet-digits").config

        def forward(self, x, t):
            seen.append(len(x))
            return torch.zeros_like(x)

    error = recipes.load("unet-digits").task.held_out_error(Silent())
    assert seen == [20 * len(real)]
    assert error == pytest.approx(1, abs=0.01)  # the variance of the noise


def test_agreement_tells_samples_that_show_their_label_from_others():
    task, model = recipes.load("dit-digits").task, weights.load("dit-digits-patch8")
    table = model.label_embed.table.weight
    good = task.agreement(model, guidance_scale=2.0)
    with torch.no_grad():
        table[:10] = table[:10].roll(1, dims=0).clone()  # every digit under the name of the next
    assert good > 0.9 > 0.1 > task.agreement(model, guidance_scale=2.0)


FULL = {  # the recipe of a DiT for the full-size digits, of a smaller size
    "description": "digits",
    "family": "dit",
    "task": "digits",
    "data": "MNIST",
    "dataset": "mnist",
    "dtype": "float16",
    "model": {
        "size": 28,
        "channels": 1,
        "patch": 4,
        "width": 32,
        "depth": 1,
        "heads": 2,
        "num_classes": 10,
        "learn_sigma": False,
    },
    "training": {"steps": 2, "batch_size": 8},
}


@pytest.fixture
def full_size(monkeypatch):
    """The recipe under the name "full", its data and measurements few."""
    whole = mnist.load

    def load(split):
        return whole(split).select(range(120))

    monkeypatch.setattr(mnist, "load", load)
    monkeypatch.setattr(task_of_digits, "LABELS", torch.arange(10).repeat(8).tolist())
    monkeypatch.setattr(task_of_digits, "COMPONENTS", 4)

    def recipe(schedule):
        made = recipes.parse("full", FULL | {"schedule": schedule})
        monkeypatch.setattr(recipes, "load", lambda name: made)
        return made

    return recipe


@pytest.mark.parametrize("schedule", ["linear", "straight"])
def test_the_full_size_digits_are_trained_in_two_steps_and_sampled_from(schedule, full_size, tmp_path):
    recipe, out = full_size(schedule), tmp_path / "full.safetensors"
    metric = recipes.train("full", out=out, runs=tmp_path)
    assert list(metric) == [
        f"held-out mse of {'eps' if schedule == 'linear' else 'v'}",
        "agreement at guidance 2",
        "distance to the nearest training image, 1 for held-out images",
        "Fréchet distance in 4 principal components",
    ]
    assert metric == weights.metadata(str(out))["metric"]
    trained = pipeline.load(str(out))
    assert isinstance(trained.diffusion, Flow if schedule == "straight" else GaussianDiffusion)
    assert trained.labels == pipeline.DIGITS
    images = trained.sample([3, None], guidance_scale=2.0, steps=3)
    assert images.shape == (2, 1, 28, 28)
    assert images.isfinite().all()
    assert recipe.task.data()["image"].shape == (120, 1, 28, 28)


@pytest.mark.parametrize("schedule", ["linear", "straight"])
def test_the_loss_of_the_full_size_digits(schedule, full_size):
    task = full_size(schedule).task
    torch.manual_seed(0)
    model, batch = weights.build("dit", FULL["model"]), first(task.data(), 8)
    found = task.loss(model, batch, context(1))
    if schedule == "straight":
        paths = Flow(uniform_times(1000))
        wanted = flow_loss(model, paths, batch["image"], context(1).generator, dropout=0.1, y=batch["label"])
    else:
        diffusion = GaussianDiffusion(schedules.linear())
        wanted = losses.denoising_loss(
            model, diffusion, batch["image"], context(1).generator, dropout=0.1, y=batch["label"]
        )
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("schedule", ["linear", "straight"])
def test_the_held_out_error_is_taken_of_what_is_predicted(schedule):
    task, real = Digits(schedule=schedule), data.tensors(digits.load("validation"))["image"]

    class Silent(torch.nn.Module):
        config = weights.load("unet-digits").config

        def forward(self, x, t):
            self.largest = t.max().item()
            return torch.zeros_like(x)

    model = Silent()
    size = 1.0 if schedule == "linear" else 1 + real.square().mean().item()  # of ε, or of ε − x₀
    assert task.held_out_error(model) == pytest.approx(size, rel=0.01)
    assert model.largest == (999 if schedule == "linear" else 1000)


def test_copies_and_noise_are_far_from_real_images():
    task = Digits(dataset="mnist")
    held_out, train = (task.split(name)["image"][:500] for name in ("validation", "train"))
    real, copied = (list(task.distances(images).values()) for images in (held_out, train))
    noise = list(task.distances(2 * torch.rand(train.shape, generator=torch.Generator().manual_seed(0)) - 1).values())
    assert real[0] == pytest.approx(1, abs=0.05)
    assert copied[0] < 0.01
    assert noise[0] > 2
    assert real[1] < 5 < 50 < noise[1]


def test_an_unknown_dataset_and_straight_paths_with_a_variance_head():
    with pytest.raises(ValueError, match="recipe full: no dataset 'letters'; there are digits and mnist"):
        recipes.parse("full", FULL | {"dataset": "letters"})
    model = weights.load("dit-digits")
    with pytest.raises(ValueError, match="learn_sigma=False"):
        Digits(schedule="straight").process(model)


def test_the_reader_is_trained_on_noisy_images_that_are_not_held_out():
    task = ReadScenes(layouts=60, noise=0.3)
    batch = task.data()
    layouts = [layout for layout in shapes.sample(60, torch.Generator().manual_seed(0)) if not shapes.held_out(layout)]
    assert torch.equal(data.to_float(batch["image"]), shapes.tensors(layouts))
    assert len(batch["target"]) == len(layouts) < 60
    seen = []
    model = weights.load("scene-reader")
    loss = task.loss(lambda x: seen.append(x) or model(x), batch, context())
    noise = (seen[0] - data.to_float(batch["image"])).flatten(1).std(dim=1)
    assert 0 < noise.min() < noise.max() < 0.35
    assert loss.item() < 1


def test_clip_is_trained_on_seen_pairs_with_their_captions():
    batch = MatchCaptions(layouts=60).data()
    words, seen = captions.tokenizer("english"), {" ".join(pair) for pair in shapes.SEEN_PAIRS}
    texts = [words.decode(row) for row in batch["tokens"].tolist()]
    assert len(texts) < 60  # some are held out
    for text in texts:
        assert {f"{thing.colour} {thing.shape}" for thing in captions.parse_english(text).things} <= seen
    rows = torch.arange(len(texts))
    assert (batch["tokens"][rows, batch["end"]] == EOS).all()


def test_the_scale_of_clip_is_clamped_after_a_step():
    model = weights.build("clip", recipes.load("clip-shapes").table["model"])
    model.log_scale.data.fill_(9.0)
    MatchCaptions(layouts=1).after_step(model)
    assert model.log_scale.exp().item() == pytest.approx(100)


def test_the_prompts_of_a_class_name_its_color_and_shape():
    model = weights.load("clip-shapes")
    tokens, end = prompts(["a small grey arrow", "a large grey arrow"])
    mean = F.normalize(model.encode_text(tokens, end).mean(dim=0), dim=0)
    torch.testing.assert_close(pair_vectors(model)[shapes.PAIRS.index(("grey", "arrow"))], mean)


def test_the_autoencoder_is_trained_with_the_weight_of_its_recipe():
    model, task = weights.load("autoencoder-shapes"), Reconstruct(layouts=4, kl_weight=0.5)
    batch = task.data()
    wanted = autoencoder_loss(model, data.to_float(batch["image"]), context().generator, 0.5)
    assert torch.equal(task.loss(model, batch, context()), wanted)


def test_latents_are_drawn_anew_and_scaled():
    task = Scenes(layouts=6, latents_of="autoencoder-shapes")
    batch, coder, model = task.data(), weights.load("autoencoder-shapes"), weights.load("dit-shapes-latent")
    assert batch["mean"].shape == batch["std"].shape == (6, 4, 8, 8)
    chance = context(3)
    x = coder.config.scale * sample_latent(batch["mean"], batch["std"], chance.generator)
    diffusion = GaussianDiffusion(schedules.linear())
    wanted = losses.denoising_loss(model, diffusion, x, chance.generator, dropout=0.1, y=batch["label"])
    torch.testing.assert_close(task.loss(model, batch, context(3)), wanted)


def test_what_a_recipe_predicts_is_what_is_learned():
    config = DiTConfig(size=32, channels=3, patch=8, width=32, depth=1, heads=4, num_classes=64, learn_sigma=False)
    model, tasks = DiT(config), [Scenes(layouts=4, predicts=predicts) for predicts in ("eps", "x_start")]
    batch = tasks[0].data()
    found = [task.loss(model, batch, context()).item() for task in tasks]
    x, generator = data.to_float(batch["image"]), torch.Generator().manual_seed(0)
    torch.randint(1000, (4,), generator=generator)
    eps = torch.randn(x.shape, generator=generator)
    wanted = [eps.square().mean().item(), x.square().mean().item()]  # the output of an untrained DiT is zero
    assert found == pytest.approx(wanted)


def test_scenes_are_labelled_by_their_color_and_shape():
    task = Scenes(layouts=5)
    batch, names = task.data(), [pipeline.SHAPES[k] for k in task.data()["label"].tolist()]
    layouts = shapes.sample(5, torch.Generator().manual_seed(0), things=1)
    assert names == [f"{thing.colour} {thing.shape}" for layout in layouts for thing in layout.scene.things]
    assert torch.equal(data.to_float(batch["image"]), shapes.tensors(layouts))


def test_samples_are_read_and_compared_with_their_label():
    layouts = shapes.sample(40, torch.Generator().manual_seed(0), things=1)
    images, labels = shapes.tensors(layouts), shapes.labels(layouts).tolist()
    assert accuracy_of_samples(images, labels) == 1
    assert accuracy_of_samples(images, [(label + 1) % 64 for label in labels]) == 0
    assert accuracy_of_samples(-torch.ones(40, 3, 32, 32), labels) == 0
    two = shapes.tensors(shapes.sample(40, torch.Generator().manual_seed(0), things=2))
    assert accuracy_of_samples(two, labels) == 0
