"""What is written for TensorBoard."""

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import two_processes as two

from ditbook import cli, pipeline
from ditbook.data import digits
from ditbook.training import evaluation, recipes, watch
from ditbook.training.distributed import Layout, joined
from ditbook.training.engine import Engine
from ditbook.training.tasks.digits import Digits

loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text(two.RECIPE)
    monkeypatch.setattr(Digits, "evaluate", lambda self, model: {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_scalars_and_samples_are_written(tiny, shard):
    assert cli.main(["train", "tiny.toml", "--steps", "51", "--shard", shard, "--watch"]) == 0
    read = loader.EventAccumulator(str(tiny / "runs/tiny/tensorboard"), {"scalars": 0, "images": 0}).Reload()
    assert [event.step for event in read.Scalars("loss")] == list(range(1, 52))
    assert [event.step for event in read.Scalars("gradient norm")] == list(range(1, 52))
    for name in watch.QUARTERS:
        assert [event.step for event in read.Scalars(f"loss by time/{name}")] == [50, 51]
    for name in ("images per second", "tokens per second"):
        assert [event.step for event in read.Scalars(name)] == [51]
    assert [event.step for event in read.Images("samples")] == [51]


def test_the_losses_by_time_leave_no_trace(tiny):
    """Shards are shards again afterwards, and the next steps are the same."""
    recipe = recipes.load("tiny.toml")
    config = dataclasses.replace(recipe.training, steps=3)
    data = {name: tensor[:8] for name, tensor in recipe.task.data().items()}
    ends = []
    with joined("cpu") as world:
        for looks in (False, True):
            made = Engine(
                recipes.started(recipe), recipe.task.loss, config, Layout(shard="fsdp"), world, 1, recipe.task.by_time
            )
            for _ in range(3):
                if looks:
                    assert made.by_time(data).shape == (4,)
                    made.state()
                made.step(data)
            made.check()
            ends.append(two.states(made)["model"])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_peak_is_that_of_the_card_and_the_type(monkeypatch):
    assert watch.peak_of(torch.device("cpu"), "float32") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert watch.peak_of(torch.device("cuda", 0), "bfloat16") == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce RTX 4090")
    assert watch.peak_of(torch.device("cuda", 0), "float32") == 82.6e12
    for unknown in ("Tesla K80", "NVIDIA L40S"):  # which is no L4
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=unknown: name)
        assert watch.peak_of(torch.device("cuda", 0), "float32") is None


def test_utilization_is_what_was_computed_over_what_could_be(tiny, monkeypatch):
    times = iter([10.0, 12.0])
    monkeypatch.setattr(watch.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(watch, "peak_of", lambda device, precision: 1e9)
    with joined("cpu") as world:
        made = watch.Watch(tiny / "board", recipes.load("tiny.toml"), world)
        engine = type("Running", (), {"count": 0, "device": None, "layout": Layout(), "config": two.CONFIG})()
        assert made.speed(engine) == {}
        engine.count = 6
        found = made.speed(engine)
    assert found["images per second"] == 3 * 8
    assert found["tokens per second"] == 3 * 8 * 4, "of 8 × 8 pixels in patches of 4"
    assert found["model flops utilization"] == pytest.approx(3 * made.flops / 1e9)


def test_without_the_package_it_says_what_to_install(tiny, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.main(["train", "tiny.toml", "--watch"]) == 1
    assert capsys.readouterr().err == "ditbook train: to watch a training, run `pip install tensorboard`\n"


@pytest.mark.parametrize("name", ["dit-digits", "unet-digits", "dit-shapes-latent", "dit-shapes-pixel"])
def test_grids_show_what_the_pipeline_makes(name):
    made, wanted = recipes.load(name).task.generator(recipes.weights.load(name)), pipeline.load(name)
    assert made.labels == wanted.labels
    images = watch.drawn(made)
    if not wanted.labels:
        assert torch.equal(images, wanted.sample(count=16))
        return
    labels = [*range(0, 64, 4)] if len(wanted.labels) == 64 else [*range(10), *range(6)]
    assert torch.equal(images, wanted.sample(labels, guidance_scale=2.0))


def test_samples_are_compared_with_real_images(tiny, monkeypatch):
    """The features of sixteen pixels; the numbers are those of the command."""
    monkeypatch.setattr(watch, "COMPARED", 60)
    (tiny / "real").mkdir()
    for number, image in enumerate(digits.load("validation")["image"]):
        image.save(tiny / "real" / f"{number:03}.png")
    module = types.ModuleType("mine")
    module.features = lambda images: images[:, 0, ::2, ::2].flatten(1)
    monkeypatch.setitem(sys.modules, "mine", module)
    command = ["train", "tiny.toml", "--steps", "3", "--real", "real", "--features", "mine:features"]
    assert cli.main(command) == 0
    read = loader.EventAccumulator(str(tiny / "runs/tiny/tensorboard")).Reload()
    wanted = evaluation.evaluate("tiny.safetensors", "real", count=60, features="mine:features")
    assert wanted.keys() == {"FID", "KID", "precision", "recall"}
    for name, value in wanted.items():
        (event,) = read.Scalars(f"against real images/{name}")
        assert (event.step, event.value) == (3, pytest.approx(value, rel=1e-3, abs=1e-5))
