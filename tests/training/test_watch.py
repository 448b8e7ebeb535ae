"""What is written for TensorBoard."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import two_processes as two

from ditbook import cli
from ditbook.training import recipes, watch
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
    assert [event.step for event in read.Scalars("images per second")] == [51]
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
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla K80")
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
    assert found["model flops utilization"] == pytest.approx(3 * made.flops / 1e9)


def test_without_the_package_it_says_what_to_install(tiny, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.main(["train", "tiny.toml", "--watch"]) == 1
    assert capsys.readouterr().err == "ditbook train: to watch a training, run `pip install tensorboard`\n"


@pytest.mark.parametrize("name", ["dit-digits", "unet-digits", "dit-shapes-latent", "dit-shapes-pixel"])
def test_grids(name):
    recipe = recipes.load(name)
    images = recipe.task.grid(recipes.weights.load(name))
    assert images.shape[0] in (16, 20)
    assert images.abs().max() <= 1
