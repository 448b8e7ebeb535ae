"""The stored measurements of chapter 12: complete, and found again on this machine."""

from itertools import product

import experiments_sampling as experiments
import pytest
import torch

from ditbook import pipeline, results


def test_the_paths_are_complete():
    found = [(r["path"], r["predicts"], r["seed"], r["calls"], r["sampler"]) for r in results.load("paths")]
    wanted = product(experiments.PATHS, experiments.SEEDS, (4, 8, 16, 50), ("ddim", "dpm_solver"))
    assert sorted(found) == sorted((*path, *rest) for path, *rest in wanted)
    assert {row["steps"] for row in results.load("paths")} == {experiments.STEPS}


def test_the_kinds_of_guidance_are_complete():
    kinds = ("autoguidance", "classifier-free", "interval", "rescaled")
    found = [(row["kind"], row["guidance_scale"], row["seed"]) for row in results.load("guidance")]
    assert sorted(found) == sorted(product(kinds, experiments.SCALES, experiments.SEEDS))


def test_without_guidance_all_kinds_are_one():
    for seed in experiments.SEEDS:
        rows = [r for r in results.load("guidance") if (r["guidance_scale"], r["seed"]) == (1.0, seed)]
        assert len({row["kind"] for row in rows}) == 4
        for row in rows:
            assert row["distance"] == pytest.approx(rows[0]["distance"], rel=0.01)


@pytest.mark.parametrize("name", experiments.WORLDS)
def test_the_samplers_are_complete(name):
    rows = [row for row in results.load("samplers") if row["weights"] == name]
    found = [(r["spacing"], r["sampler"], r["calls"], r["seed"]) for r in rows if r["sampler"] != "real"]
    assert sorted(found) == sorted(
        (*plan, seed) for seed in experiments.SEEDS for plan in experiments.plans(name, seed)
    )
    assert sum(row["sampler"] == "real" for row in rows) == 1


@pytest.mark.parametrize("name", ["dit-digits-28", "dit-digits-28-straight"])
def test_the_distance_of_four_calls_is_found_again(name):
    maker, world = pipeline.load(name), experiments.WORLDS[name]
    (row,) = [
        row
        for row in results.load("samplers")
        if (row["weights"], row["sampler"], row.get("spacing"), row.get("calls"), row.get("seed"))
        == (name, "dpm_solver", "uniform", 4, 0)
    ]
    step, process = experiments.SAMPLERS["dpm_solver"][0], experiments.levels(maker.diffusion, "uniform", 4)
    with torch.random.fork_rng(devices=[]):
        images = experiments.generated(maker.model, process, world.labels, (1, 28, 28), step, 1.0, 0)
    measured = world.measure(images.clamp(-1, 1))
    assert measured["distance"] == pytest.approx(row["distance"], rel=0.02)
    assert measured["agreement"] == pytest.approx(row["agreement"], abs=0.01)


def test_a_batch_in_parts_is_predicted_as_a_whole():
    model, count = (lambda x, t, y: x * t[:, None] + y[:, None]), 2 * experiments.PART + 3
    x, t, y = torch.randn(count, 4), torch.arange(count), torch.arange(count) + 1
    assert torch.equal(experiments.in_parts(model)(x, t, y=y), model(x, t, y=y))


def test_levels_by_karras_stay_within_those_of_the_process():
    process = pipeline.load("dit-digits-28-straight").diffusion
    few = experiments.levels(process, "karras", 6)
    assert few.num_steps == 6
    assert few.sigmas[-1].item() == pytest.approx(80.0)
    assert few.sigmas[0].item() == pytest.approx(process.sigmas[0].item())


def test_a_row_of_real_images_agrees_with_its_labels():
    for row in results.load("samplers"):
        if row["sampler"] == "real":
            assert row["agreement"] == 1.0
