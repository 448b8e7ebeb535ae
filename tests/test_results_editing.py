"""The stored measurements of chapter 13: complete, and some of them found again on this machine."""

from itertools import product

import experiments_cascade as stages
import experiments_editing as experiments
import numpy as np
import pytest
import torch

from ditbook import data, pipeline, results
from ditbook.data import photographs
from ditbook.diffusion import editing


def plans(name, *keys):
    return sorted(tuple(str(row[key]) for key in keys) for row in results.load(name))


def strings(rows):
    return sorted(tuple(map(str, row)) for row in rows)


def test_every_measurement_is_there_once():
    gaussian = [(*plan, seed) for plan, seed in product(experiments.GAUSSIAN, experiments.SEEDS)]
    assert plans("inpainting-gaussian", "steps", "jump", "repetitions", "seed") == strings(gaussian)
    halves = [
        (world, *plan, seed)
        for world, several in (("digits", experiments.PLANS), ("faces", experiments.FEWER))
        for plan, seed in product(several, experiments.SEEDS)
    ] + [("digits", name, 0, 1, 1, 0) for name in experiments.BOUNDS]
    assert plans("inpainting", "world", "method", "steps", "jump", "repetitions", "seed") == strings(halves)
    assert plans("edits", "sigma", "seed") == strings(product(experiments.SIGMAS, experiments.SEEDS))
    windows = [(*plan, seed) for plan, seed in product(experiments.WINDOWS, experiments.SEEDS)]
    assert plans("outpainting", "steps", "repetitions", "seed") == strings(windows)
    kinds = ["network", *(f"Wiener, {side}×{side}" for side in (1, 4, 8, 16))]
    squares = product(photographs.NAMES, kinds, experiments.NOISES)
    assert plans("denoising", "photograph", "method", "sigma") == strings(squares)
    arms = [(1, 0), *((stages.LEVELS[1], level) for level in stages.SHOWN)]
    assert plans("augmentation", "levels", "level", "seed") == strings(
        (*arm, seed) for arm, seed in product(arms, stages.SEEDS)
    )
    models = [("one", None), ("training faces", None), *(("cascade", level) for level in stages.SAFE)]
    assert plans("cascade", "model", "level", "seed") == strings(
        (*model, seed) for model, seed in product(models, stages.SEEDS)
    )


def test_calls_are_those_of_the_formula():
    for name in ("inpainting-gaussian", "inpainting"):
        for row in results.load(name):
            assert row["calls"] == editing.calls(row["steps"], row["jump"], row["repetitions"])


def test_a_seam_is_measured_against_the_true_images():
    x = torch.zeros(2, 1, 4, 3)
    x[:, :, 2:] = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    found = experiments.seam(2 * x, x)
    assert found["seam"] == pytest.approx(4)
    assert found["standard error"] == pytest.approx(0)
    assert experiments.seam(x, x) == {"seam": 1, "standard error": 0, "error": 0}


def test_an_edit_is_found_again():
    (row,) = [r for r in results.load("edits") if (r["sigma"], r["seed"]) == (experiments.SIGMAS[-1], 0)]
    found = experiments.edited(experiments.SIGMAS[-1], 0)
    assert found["moved"] == pytest.approx(row["moved"], rel=0.05)
    assert found["read"] == pytest.approx(row["read"], abs=0.03)


def test_the_network_s_denoising_is_found_again():
    maker = pipeline.load("unet-photographs")
    for name in photographs.NAMES:
        plan = (name, 0.4, "network")
        (row,) = [r for r in results.load("denoising") if (r["photograph"], r["sigma"], r["method"]) == plan]
        noisy, t, x = experiments.noisy_squares(maker, name, 0.4)
        assert x.shape == (row["n"], 3, 32, 32)
        error = (experiments.predicted(maker, noisy, t) - x).square().mean()
        assert error.item() == pytest.approx(row["error"], rel=0.05)


def test_the_squares_of_a_photograph_are_apart():
    """Each stands where the photograph has it, and none overlaps another."""
    _, _, x = experiments.noisy_squares(pipeline.load("unet-photographs"), "china", 0.4)
    whole = data.to_float(torch.from_numpy(np.array(photographs.load("validation")[0]["image"])[None]))
    assert torch.equal(x[6], whole[0, :, 32:64, 32:64])  # five in a row


def test_the_cascade_is_found_again():
    """Its samples follow from the seed, so their distance does."""
    (row,) = [r for r in results.load("cascade") if (r["model"], r["level"], r["seed"]) == ("cascade", 0, 0)]
    x = stages.enlarged(0, 0)
    assert stages.distances(x)["distance"] == pytest.approx(row["distance"], rel=0.03)
