import dataclasses
import tomllib

import pytest
import torch

import ditbook
from ditbook import weights
from ditbook.data import captions
from ditbook.training import recipes
from ditbook.weights import checkpoint


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_builds_its_model_and_its_vocabulary_is_that_of_its_captions(name):
    recipe = recipes.load(name)
    model = weights.build(recipe.table["family"], recipe.table["model"])
    shipped = weights.load(name).state_dict()
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in shipped.items()}
    if recipe.table["task"] == "captions":
        languages = {"source": "english", "target": recipe.task.writes}
        sizes = {side: len(captions.tokenizer(language)) for side, language in languages.items()}
        assert {side: recipe.table["model"][side] for side in sizes} == sizes


def test_unknown_recipe():
    with pytest.raises(ValueError, match=r"no recipe named 'dit-cats'; there are autoencoder-.*unet-digits"):
        recipes.load("dit-cats")


BERT = {"task": "masked-words", "next_sentence": False} | dict.fromkeys(("layouts", "predicts", "schedule"))


def table(**changes):
    whole = dict(recipes.load("dit-shapes-pixel").table) | changes
    return {key: value for key, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": None, "dtype": None}, "recipe x lacks family, dtype"),
        ({"layouts": None}, "recipe x lacks layouts"),
        ({"layers": 3}, "recipe x has the unknown keys layers; there are layouts, latents_of, predicts, schedule"),
        (
            {"task": "cats"},
            "recipe x has the unknown task 'cats'; there are autoencoder, captions, clip, dalle, digits",
        ),
        ({"dtype": "int8"}, "recipe x has the unknown dtype 'int8'; there are float16, float32"),
        ({"training": {"stages": 3}}, "recipe x, training has the unknown keys stages; there are steps, batch_size"),
        ({"task": ["scenes"]}, r"recipe x: task \['scenes'\] must be a text"),
        ({"dtype": 16}, "recipe x: dtype 16 must be a text"),
        ({"description": True}, "recipe x: description True must be a text"),
        ({"model": 3}, "recipe x: model 3 must be a table"),
        ({"training": []}, r"recipe x: training \[\] must be a table"),
        ({"family": "gan"}, "recipe x, model: no family of models 'gan'"),
        ({"model": {"depth": 0}}, "recipe x, model: depth 0 must be at least 1"),
        ({"model": {"width": 96.5}}, "recipe x, model: width 96.5 of type float must be a whole number"),
        ({"model": {"heads": True}}, "recipe x, model: heads True of type bool must be a whole number"),
        ({"model": {"heads": 7}}, "recipe x, model: width 1152 is not divisible by heads 7"),
        ({"model": {"layers": 3}}, r"recipe x, model: DiT cannot be built from .*'layers'"),
        ({"layouts": 0}, "recipe x: layouts 0 must be at least 1"),
        ({"layouts": -5}, "recipe x: layouts -5 must be at least 1"),
        ({"layouts": 2.5}, "recipe x: layouts 2.5 of type float must be a whole number"),
        ({"layouts": True}, "recipe x: layouts True of type bool must be a whole number"),
        ({"predicts": "noise"}, "recipe x: predicts 'noise' of type str must be one of eps, x_start, v"),
        (BERT | {"parts": "mask"}, "recipe x: parts 'mask' of type str must be a list"),
        (BERT | {"parts": [0.8, "0.1"]}, r"parts \[0.8, '0.1'\] of type list must be a list, each a number"),
        (BERT | {"next_sentence": 1}, "recipe x: next_sentence 1 of type int must be true or false"),
        ({"latents_of": 3}, "recipe x: latents_of 3 of type int must be a text"),
        ({"training": {"steps": 0}}, "recipe x, training: steps and batch_size must be positive, got 0 and 128"),
        ({"training": {"steps": 1.5}}, "recipe x, training: steps 1.5 of type float must be a whole number"),
        ({"training": {"batch_size": "64"}}, "recipe x, training: batch_size '64' of type str must be a whole number"),
        ({"training": {"seed": True}}, "recipe x, training: seed True of type bool must be a whole number"),
        ({"training": {"learning_rate": -1}}, "recipe x, training: learning_rate must be positive"),
        ({"training": {"learning_rate": float("nan")}}, "training: learning_rate nan of type float must be a number"),
        ({"training": {"learning_rate": "1e-3"}}, "training: learning_rate '1e-3' of type str must be a number"),
        ({"training": {"ema_decay": 1.5}}, "recipe x, training: ema_decay must lie in 0 to 1, below 1, got 1.5"),
        ({"training": {"grad_clip": False}}, "recipe x, training: grad_clip False of type bool must be a number"),
        ({"training": {"decay": 1}}, "recipe x, training: decay 1 of type int must be a text"),
        ({"training": {"decay": "cosine"}}, "recipe x, training: no decay 'cosine'; there are none and inverse_sqrt"),
    ],
)
def test_wrong_keys_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.parse("x", table(**changes))


@pytest.mark.parametrize("name", recipes.names())
def test_a_number_out_of_its_range_is_refused_by_name(name):
    task = recipes.load(name).task
    for field in dataclasses.fields(task):
        if type(getattr(task, field.name)) in (int, float):
            with pytest.raises(ValueError, match=f"{field.name} -1 must"):
                dataclasses.replace(task, **{field.name: -1})


@pytest.fixture
def short(monkeypatch):
    """A recipe that takes a second: measured by nothing."""
    load = recipes.load

    def shortened(name):
        recipe = load(name)
        task = type("Short", (type(recipe.task),), {"evaluate": lambda self, model: {"parameters": 1.0}})()
        training = dataclasses.replace(recipe.training, batch_size=4)
        return dataclasses.replace(recipe, task=task, training=training)

    monkeypatch.setattr(recipes, "load", shortened)


def test_training_writes_a_file_that_loads_and_says_how_long_it_was_trained(short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    assert recipes.train("unet-digits", steps=3) == {"parameters": 1.0}
    assert torch.equal(torch.get_rng_state(), before)  # the global state is left alone
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "runs/unet-digits.safetensors",
        "unet-digits.safetensors",
    ]
    about = weights.metadata("unet-digits.safetensors")
    recipe = tomllib.loads((recipes.resources.files(weights) / "unet-digits.toml").read_text(encoding="utf-8"))
    assert about.pop("metric") == {"parameters": 1.0}
    assert about.pop("version") == ditbook.__version__
    assert about.pop("note") == "3 of the recipe's 2,000 steps"
    recipe["training"]["steps"] = 3
    assert about == recipe
    tensors, _ = checkpoint.load("unet-digits.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    average, _ = checkpoint.load("runs/unet-digits.safetensors")
    assert all(torch.equal(tensors[name], average[f"ema.{name}"].half()) for name in tensors)
    weights.load("unet-digits.safetensors")


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(short, tmp_path):
    whole, parts = (tmp_path / f"{name}.safetensors" for name in ("whole", "parts"))
    recipes.train("unet-digits", steps=4, out=whole, runs=tmp_path / "a")
    recipes.train("unet-digits", steps=2, out=parts, runs=tmp_path / "b")
    recipes.train("unet-digits", steps=4, out=parts, runs=tmp_path / "b")
    (one, about_one), (other, about_other) = checkpoint.load(whole), checkpoint.load(parts)
    assert about_one == about_other
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_fails_leaves_the_old_file(short, tmp_path, monkeypatch):
    out = tmp_path / "unet.safetensors"
    out.write_bytes(b"old")

    def fail(*args, **options):
        raise OSError("no room")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="no room"):
        recipes.train("unet-digits", steps=1, out=out, runs=tmp_path)
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("device", ["cuda", "quantum"])
def test_a_device_that_is_not_there(short, tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match=f"no device '{device}' here"):
        recipes.train("unet-digits", steps=1, device=device, runs=tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_training_on_a_gpu(short, tmp_path):
    out = tmp_path / "unet.safetensors"
    recipes.train("unet-digits", steps=2, device="cuda", out=out, runs=tmp_path)
    recipes.train("unet-digits", steps=4, device="cuda", out=out, runs=tmp_path)
    assert all(parameter.isfinite().all() for parameter in weights.load(str(out)).parameters())
