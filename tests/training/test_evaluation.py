"""Samples against real images."""

import sys
import types

import pytest
import torch

from ditbook import cli, pipeline
from ditbook.data import shapes
from ditbook.data.shapes import tensors
from ditbook.training import evaluation
from ditbook.training.distributed import World, joined


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """Sixty drawings of one thing in a folder, without labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    dataset = shapes.load("validation", 60, seed=1)
    for number, image in enumerate(dataset["image"]):
        image.save(tmp_path / "real" / f"{number:03}.png")
    return tmp_path


def test_the_command(scenes, capsys, recwarn):
    command = ["evaluate", "dit-shapes-latent", "real", "--count", "60", "--steps", "3"]
    assert cli.main(command) == 0
    words = capsys.readouterr().out
    assert [part.split(": ")[0] for part in words.split("; ")[0].split(", ")] == [
        "FID", "KID", "precision", "recall", "Inception Score"
    ]  # fmt: skip
    assert words.endswith("; features: scene-reader\n")


def test_metrics_of_equal_and_of_other_features():
    numbers = torch.Generator().manual_seed(0)
    real, other = (torch.randn(200, 4, generator=numbers) for _ in range(2))
    same = evaluation.metrics(real, real, None)
    assert same["FID"] == pytest.approx(0, abs=1e-4)
    assert (same["precision"], same["recall"]) == (1, 1)
    assert same["KID"] < 0
    far = evaluation.metrics(real, other + 3, torch.eye(4).repeat(50, 1))
    assert far["FID"] == pytest.approx(36, rel=0.1)
    assert far["Inception Score"] == pytest.approx(4)
    assert far["precision"] < 0.2


def test_the_samples_do_not_depend_on_the_number_of_processes():
    """Each of two processes makes its batches; put together in turn they are those of one."""
    made = pipeline.load("dit-digits")

    def samples(rank, size):
        world = World(rank, size, torch.device("cpu"), None)
        return list(evaluation.generated(made, 12, world, 0, 5, steps=2))

    one, first, second = samples(0, 1), samples(0, 2), samples(1, 2)
    assert [len(part) for part in one] == [5, 5, 2]
    assert torch.equal(torch.cat(one), torch.cat([first[0], second[0], first[1]]))
    assert not torch.equal(one[0], one[1])

    class Two(World):
        def gather(self, value):
            return [first, second]

    assert torch.equal(evaluation.together(first, Two(0, 2, torch.device("cpu"), None)), torch.cat(one))


def test_real_images_are_shared_and_prepared(scenes):
    def images(rank, size, count=60):
        world = World(rank, size, torch.device("cpu"), None)
        return list(evaluation.originals("real", "train", 16, 1, count, world, 25))

    assert [tuple(part.shape) for part in images(0, 1)] == [(25, 1, 16, 16), (25, 1, 16, 16), (10, 1, 16, 16)]
    assert [len(part) for part in images(1, 2)] == [25]
    assert [len(part) for part in images(0, 1, count=30)] == [25, 5]
    few, everything = torch.cat(images(0, 1, count=3)), torch.cat(images(0, 1))
    assert torch.equal(few, everything[[0, 29, 59]])  # not the first class of a folder only


def test_features_of_the_readers_own(monkeypatch):
    module = types.ModuleType("mine")
    module.features = lambda images: images.flatten(1)
    module.network = torch.nn.Linear(2, 2)
    monkeypatch.setitem(sys.modules, "mine", module)
    device = torch.device("cpu")
    assert evaluation.extractor("mine:features", device) is module.features
    assert evaluation.extractor("mine:network", torch.device("meta")).weight.is_meta
    for name in ("mine:nothing", "nowhere:features", "inception"):
        with pytest.raises(ValueError, match=f"no features '{name}'"):
            evaluation.extractor(name, device)


def test_the_reader_is_the_judge_of_chapter_17():
    images = tensors(shapes.sample(5, torch.Generator().manual_seed(0)))
    reader = evaluation.extractor("scene-reader", torch.device("cpu"))
    assert torch.equal(reader(images), reader.reader.features(images))
    torch.testing.assert_close(reader.probabilities(images).sum(dim=1), torch.ones(5))


def test_bad_arguments(scenes):
    with pytest.raises(ValueError, match="count and batch_size must be positive, got 0 and 50"):
        evaluation.evaluate("dit-digits", "real", count=0)
    with pytest.raises(ValueError, match="does not generate images"):
        evaluation.evaluate("clip-shapes", "real")
    with pytest.raises(ValueError, match=r"scene-reader reads images of \(3, 32, 32\), not \(1, 8, 8\)"):
        evaluation.evaluate("dit-digits", "real", count=2, steps=2)
    with joined("cpu") as world:  # it was left
        assert world.first
