"""The tasks of chapter 13: faces at one size, from one size to the next, and squares of photographs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ditbook import data, weights
from ditbook.data import emoji, photographs
from ditbook.diffusion import losses, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.training import recipes
from ditbook.training.loop import Context
from ditbook.training.tasks import faces
from ditbook.training.tasks.photographs import crops

PROCESS = GaussianDiffusion(schedules.cosine(), predicts="x_start")


def context(seed=0):
    return Context(0, torch.Generator().manual_seed(seed))


def fresh(name):
    recipe = recipes.load(name)
    torch.manual_seed(0)
    return recipe.task, weights.build(recipe.table["family"], recipe.table["model"])


@pytest.mark.parametrize(("split", "count"), [("train", 871), ("held out", 58)])
def test_faces_are_one_group_of_the_emoji(split, count):
    found = faces.load(split)
    assert found.shape == (count, 3, 32, 32)
    rows = []
    for name in ("train",) if split == "train" else ("things", "pairs"):
        dataset = emoji.load(name)
        names = dataset.features["group"].names
        rows += [row["image"] for row in dataset if names[row["group"]] == "Smileys & Emotion"]
    assert len(rows) == count
    last = torch.from_numpy(np.array(rows[-1])).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(found[-1], last)


def test_faces_are_trained_at_the_size_of_the_model():
    task, model = fresh("unet-faces-8")
    batch = {"image": task.data()["image"][:8]}
    small = F.avg_pool2d(batch["image"], 4)
    wanted = losses.denoising_loss(model, PROCESS, small, context(1).generator)
    torch.testing.assert_close(task.loss(model, batch, context(1)), wanted)


def test_an_upsampler_is_trained_on_small_faces_with_the_noise_of_its_level():
    task, model = fresh("upsampler-faces-16")
    batch, seen = {"image": task.data()["image"][:64]}, []

    def spy(x, t, low, level):
        seen.append((x, low, level))
        return torch.zeros_like(x)

    spy.config = model.config
    task.loss(spy, batch, context(1))
    ((x, low, level),) = seen
    assert x.shape == (64, 3, 16, 16)
    assert 200 < level.max() < task.levels == 300
    assert level.min() < 100
    clean = F.avg_pool2d(batch["image"], 4)
    for k in range(64):
        a, b = PROCESS.scales(int(level[k]))
        assert ((low[k] - a * clean[k]) / b).std().item() == pytest.approx(1, abs=0.3)


def test_without_levels_the_small_faces_are_as_they_are():
    _, model = fresh("upsampler-faces-16")
    task, seen = faces.UpsampleFaces(levels=1), []

    def spy(x, t, low, level):
        seen.append(low)
        return torch.zeros_like(x)

    spy.config = model.config
    images = task.data()["image"][:4]
    task.loss(spy, {"image": images}, context())
    torch.testing.assert_close(seen[0], F.avg_pool2d(images, 4), atol=0.05, rtol=0)


def test_distances_of_the_training_faces_themselves_are_nothing():
    train = faces.load("train")
    images, details, nearest = faces.Faces().distances(train).values()
    assert (abs(images), abs(details)) == pytest.approx((0, 0), abs=1e-3)
    assert nearest == pytest.approx(0, abs=1e-2)  # cdist rounds the distance of a point to itself to about 1e-3
    images, details, nearest = faces.Faces().distances(faces.load("held out")).values()
    assert images > 1
    assert details > 1
    assert nearest == 1


def test_detail_is_what_a_reduced_face_lacks():
    flat = torch.ones(1, 3, 32, 32) * torch.tensor([0.1, -0.5, 0.9]).view(1, 3, 1, 1)
    torch.testing.assert_close(faces.detail(flat), torch.zeros_like(flat), atol=1e-6, rtol=0)
    board = (torch.arange(32) % 2 * 2.0 - 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(faces.detail(board), board, atol=1e-6, rtol=0)


def test_squares_are_cut_from_one_part_of_both_photographs():
    for split in photographs.SPLITS:
        found = crops(split, 6, 16, seed=0)
        assert (found.shape, found.dtype) == ((6, 16, 16, 3), torch.uint8)
        wholes = photographs.load(split).with_format("torch")["image"]
        for square, whole in zip(found, [wholes[0]] * 3 + [wholes[1]] * 3, strict=True):
            windows = whole.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 3, 4, 0)  # (y, x, 16, 16, 3)
            assert (windows == square).flatten(2).all(-1).any()


def test_photographs_are_trained_by_the_simple_loss():
    task, model = fresh("unet-photographs")
    batch = {"image": crops("train", 4, 32, seed=0)}
    wanted = losses.denoising_loss(model, PROCESS, data.to_float(batch["image"]), context(1).generator)
    assert torch.equal(task.loss(model, batch, context(1)), wanted)
    assert torch.equal(task.data()["image"][:4000:1000], crops("train", task.squares, 32, seed=0)[:4000:1000])
