"""Images encoded in shards, and a DiT trained on them."""

import dataclasses
import json
import logging
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ditbook import cli, data, weights
from ditbook.convert import autoencoder as layout
from ditbook.data import user_images
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig
from ditbook.training import latents, launch, recipes
from ditbook.training.distributed import Layout
from ditbook.training.loop import Context
from ditbook.training.tasks import latents as tasks
from ditbook.training.tasks.latents import Latents

OPTIONS = {"autoencoder": "autoencoder-shapes", "size": 32, "batch_size": 3, "rows": 4}
RECIPE = """
description = "My images"
family = "dit"
task = "latents"
data = "my images"
dtype = "float32"
folder = "latents"
latents_of = "latents/autoencoder.safetensors"
model = {size = 8, channels = 4, patch = 4, width = 16, depth = 1, heads = 2, num_classes = 2, learn_sigma = false}
training = {steps = 4, batch_size = 4, ema_decay = 0.9}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Ten images of two classes, none of the size wanted."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0)
    for n in range(10):
        path = tmp_path / "images" / ("cat" if n < 4 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return tmp_path


def columns():
    found = latents.read("latents")
    return {name: column[torch.arange(10)] for name, column in found.items()}


def test_latents_are_those_of_the_autoencoder():
    assert latents.encode("images", "latents", **OPTIONS) == 10
    images = data.tensors(user_images.prepare(user_images.load("images"), 32))
    model, found = weights.load("autoencoder-shapes"), columns()
    assert found["label"].tolist() == images["label"].tolist() == [0] * 4 + [1] * 6
    with torch.no_grad():
        for mirror, x in (("", images["image"]), ("mirrored ", images["image"].flip(-1))):
            for name, wanted in zip(("mean", "std"), model.encode(x), strict=True):
                torch.testing.assert_close(found[f"{mirror}{name}"], wanted, rtol=2e-3, atol=2e-3)  # float16
    assert not torch.equal(found["mean"].flip(-1), found["mirrored mean"])


def test_rows_of_a_column_are_read_in_any_order():
    latents.encode("images", "latents", **OPTIONS)
    whole, rows = columns(), torch.tensor([9, 0, 4, 4])
    assert len(latents.read("latents")["mean"]) == 10
    assert torch.equal(latents.read("latents")["mean"][rows], whole["mean"][rows])


def test_each_process_makes_its_own_shards():
    latents.encode("images", "latents", **OPTIONS, rank=1, processes=2)
    assert sorted(path.name for path in Path("latents").glob("*-*")) == ["latents-000001.safetensors"]
    with pytest.raises(ValueError, match=r"no weight file at latents/latents-000000\..*; run `ditbook encode` again"):
        latents.read("latents")
    latents.encode("images", "latents", **OPTIONS, rank=0, processes=2)
    shared = columns()
    latents.encode("images", "alone", **OPTIONS)
    alone = {name: column[torch.arange(10)] for name, column in latents.read("alone").items()}
    assert all(torch.equal(shared[name], alone[name]) for name in alone)


def test_it_goes_on_where_it_stopped(folder, caplog, monkeypatch):
    latents.encode("images", "latents", **OPTIONS)
    good = columns()
    first, second, third = sorted((folder / "latents").glob("latents-*"))
    first.unlink()
    content = bytearray(second.read_bytes())
    content[-5] ^= 1
    second.write_bytes(content)
    encoded, encode = [], Autoencoder.encode
    monkeypatch.setattr(Autoencoder, "encode", lambda self, x: encoded.append(len(x)) or encode(self, x))
    with caplog.at_level(logging.WARNING, logger="ditbook"):
        latents.encode("images", "latents", **OPTIONS)
    assert sum(encoded) == 2 * 8  # of two shards, both sides; the third was there
    assert "latents-000001.safetensors is damaged" in caplog.text
    assert "it is encoded again" in caplog.text
    assert all(torch.equal(good[name], tensor) for name, tensor in columns().items())
    assert third.exists()


def test_a_folder_that_has_grown(folder):
    latents.encode("images", "latents", **OPTIONS)
    shutil.copy(folder / "images/cat/3.png", folder / "images/cat/9.png")
    latents.encode("images", "latents", **OPTIONS)
    latents.encode("images", "anew", **OPTIONS)
    found, wanted = (latents.read(name) for name in ("latents", "anew"))
    assert len(found["mean"]) == 11
    assert all(torch.equal(found[name][torch.arange(11)], wanted[name][torch.arange(11)]) for name in wanted)


def test_a_scale_that_is_not_that_of_the_decoder(folder):
    latents.encode("images", "latents", **OPTIONS)
    task = Latents(folder="latents", latents_of="latents/autoencoder.safetensors", scale=0.3)
    with pytest.raises(ValueError, match=r"the recipe says scale 0\.3, but .* decodes with"):
        task.data()


def test_bad_ends(folder):
    with pytest.raises(ValueError, match="latents holds no latents that are complete; make them with `ditbook encode`"):
        latents.read("latents")
    latents.encode("images", "latents", **OPTIONS)
    with pytest.raises(ValueError, match=r"latents-000000\.safetensors was encoded with size 32, not 16"):
        latents.encode("images", "latents", **OPTIONS | {"size": 16})
    with pytest.raises(ValueError, match="divisible by 4"):
        latents.encode("images", "other", **OPTIONS | {"size": 30})
    with pytest.raises(ValueError, match="dit-digits is a DiT, no autoencoder"):
        latents.encode("images", "other", **OPTIONS | {"autoencoder": "dit-digits"})
    (folder / "images/cat/3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"row 3 \(.*3\.png\): no readable image"):
        latents.encode("images", "other", **OPTIONS)
    shard = folder / "latents/latents-000002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"latents-000002\.safetensors is truncated .*; run `ditbook encode` again"):
        latents.read("latents")


def test_a_parquet_file_and_images_without_labels(folder):
    images = user_images.load("images")
    images.select_columns("image").to_parquet("images.parquet")
    assert latents.encode("images.parquet", "latents", **OPTIONS) == 10
    assert "label" not in latents.read("latents")
    task = Latents(folder="latents", latents_of="latents/autoencoder.safetensors")
    assert task.data()["label"].tolist() == [0] * 10


def test_an_autoencoder_in_diffusers_layout(folder):
    small = AutoencoderConfig(widths=(8, 16), blocks=1, groups=4, scale=0.5)
    torch.manual_seed(0)
    model = Autoencoder(small)
    (folder / "vae").mkdir()
    save_file(layout.to_diffusers(model), folder / "vae/diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="vae holds no such model in diffusers' layout: "):
        latents.load_autoencoder("vae")
    config = {theirs: getattr(small, ours) for ours, theirs in layout.CONFIG.items()}
    (folder / "vae/config.json").write_text(json.dumps(config))
    latents.encode("images", "latents", **OPTIONS | {"autoencoder": "vae"})
    read = weights.load("latents/autoencoder.safetensors")
    assert read.config == small
    assert all(torch.equal(a, b) for a, b in zip(read.parameters(), model.parameters(), strict=True))
    del config["scaling_factor"]  # as in files of before there was the field
    (folder / "vae/config.json").write_text(json.dumps(config))
    assert latents.load_autoencoder("vae").config == dataclasses.replace(small, scale=0.18215)
    del config["norm_num_groups"]
    (folder / "vae/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"vae holds no such model in .* layout: the config lacks norm_num_groups"):
        latents.load_autoencoder("vae")


def test_a_dit_trains_on_them_and_is_sampled_from(folder, capsys):
    (folder / "mine.toml").write_text(RECIPE)
    command = ["encode", "images", "--autoencoder", "autoencoder-shapes", "--size", "32"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == "latents (10 images)\n"
    assert cli.main(["train", "mine.toml"]) == 0
    assert cli.main(["sample", "mine.safetensors", "--labels", "0,1", "--steps", "2"]) == 0
    metric = launch.train("mine.toml", Layout(shard="fsdp"), parts=2)
    assert 0.5 < metric["loss"] < 2


def test_it_is_measured_part_by_part_where_it_was_trained_or_on_the_cpu(monkeypatch):
    latents.encode("images", "latents", **OPTIONS)
    recipe = recipes.parse("mine", tomllib.loads(RECIPE))
    model, seen, evaluate = recipes.started(recipe), [], Latents.evaluate

    def noting(self, model):
        seen.append(next(model.parameters()).device.type)
        if len(seen) == 1:
            raise torch.OutOfMemoryError
        return evaluate(self, model)

    monkeypatch.setattr(Latents, "evaluate", noting)
    monkeypatch.setattr(tasks, "AT_ONCE", 3)
    monkeypatch.setattr(Latents, "loss", lambda self, model, batch, context: batch["mean"].mean())
    first, second = (recipes.export(recipe, model, 4, f"{name}.safetensors") for name in ("first", "second"))
    assert first == second
    assert seen == ["cpu"] * 3
    wanted = columns()["mean"].mean().item()
    assert first["loss"] == pytest.approx(wanted, abs=1e-4)


def test_half_of_the_latents_are_mirrored_and_scaled(monkeypatch):
    latents.encode("images", "latents", **OPTIONS)
    task, seen = Latents(folder="latents", latents_of="latents/autoencoder.safetensors"), []
    monkeypatch.setattr(tasks, "denoising_loss", lambda model, process, x, *args, **options: seen.append(x))
    mean = torch.zeros(400, 4, 8, 8)
    batch = {"mean": mean, "std": mean, "mirrored mean": mean + 3, "mirrored std": mean + 1}
    model = recipes.started(recipes.parse("mine", tomllib.loads(RECIPE)))
    label = {"label": torch.zeros(400, dtype=torch.int64)}
    task.loss(model, batch | label, Context(0, torch.Generator().manual_seed(0)))
    x = seen[0] / weights.load("autoencoder-shapes").config.scale
    plain = (x == 0).flatten(1).all(dim=1)
    assert 160 < plain.sum() < 240
    assert x[~plain].mean().item() == pytest.approx(3, abs=0.05)
    assert x[~plain].std().item() == pytest.approx(1, abs=0.05)


def test_the_recipes_of_the_paper():
    recipe = recipes.load("DiT-XL/2")
    training = recipe.training
    assert recipe.name == "DiT-XL-2"
    assert (training.batch_size, training.learning_rate, training.weight_decay) == (256, 1e-4, 0)
    assert (training.warmup_steps, training.ema_decay, training.steps) == (0, 0.9999, 400_000)
    assert recipe.table["model"]["label_dropout"] == 0.1
    assert len(recipes.MODELS) == 12
    for name in recipes.MODELS:
        assert recipes.load(name).table["model"]["patch"] == int(name[-1])


def test_a_recipe_of_the_paper_is_planned_without_latents(capsys):
    assert cli.main(["train", "DiT-XL/2", "--dry-run", "--cards", "8", "--precision", "bfloat16"]) == 0
    assert "a step of 256 rows: 182.2 TFLOP, 711.7 GFLOP a row" in capsys.readouterr().out
    assert cli.main(["train", "DiT-S/8"]) == 1
    assert "latents holds no latents that are complete" in capsys.readouterr().err
