"""Two processes compute what one computes: losses, gradients, averages, and the same rows in the same order."""

import dataclasses
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import two_processes as two

from ditbook.training import engine
from ditbook.training.distributed import Layout, joined
from ditbook.training.engine import Engine, Order
from ditbook.training.snapshots import Snapshots
from ditbook.weights import checkpoint


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the two processes found, by rank; and the folder, in which two more have trained the recipe."""
    folder = tmp_path_factory.mktemp("engines")
    for scene in ("engines", "recipe"):  # processes that meet twice at one address may meet in the past
        for process in two.start(scene, folder):
            _, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
    return [torch.load(folder / f"found{rank}.pt") for rank in range(2)], folder


@pytest.fixture(scope="module")
def alone():
    with joined("cpu") as world:
        yield world


@pytest.fixture(scope="module")
def one(alone):
    """One process with the same two parts of each batch."""
    return two.run(alone, Layout())


def close(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance)


def identical(first, second):
    flat = [first, second]
    return all(torch.equal(a, b) for a, b in zip(*(list(x.values()) for x in flat), strict=True))


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_losses_gradients_and_averages_are_those_of_one_process(found, one, layout):
    for rank in range(2):
        here = found[0][rank]["equal_to_one"][layout]
        assert here["losses"] == pytest.approx(one["losses"], abs=1e-6)
        close(here["gradients"], one["gradients"], rtol=1e-5, atol=1e-6)
        close(here["model"], one["model"], rtol=1e-4, atol=1e-5)
        close(here["ema"], one["ema"], rtol=1e-4, atol=1e-5)


def test_the_gradient_of_one_process_is_that_of_the_mean_of_its_parts(alone):
    first = dataclasses.replace(two.CONFIG, steps=1, grad_clip=None)
    model, order = two.model(), Order(41, 8, seed=3)
    batch = {name: tensor[order(0)] for name, tensor in two.data().items()}
    for part in range(2):
        rows = {name: tensor[4 * part : 4 * part + 4] for name, tensor in batch.items()}
        context = engine.Context(0, engine.generator(3, engine.NOISE, 0, part))
        (two.loss(model, rows, context) / 2).backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    close(two.run(alone, Layout(), config=first)["gradients"], wanted, rtol=1e-5, atol=1e-7)


def test_gradients_are_clipped_by_the_norm_of_all_shards(found):
    for rank in range(2):
        gradients = found[0][rank]["equal_to_one"]["fsdp"]["gradients"]
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_more_parts_than_processes(found, alone):
    wanted = two.run(alone, Layout(), parts=4)
    here = found[0][0]["equal_to_one"]["four parts"]
    assert here["losses"] == pytest.approx(wanted["losses"], abs=1e-6)
    close(here["gradients"], wanted["gradients"], rtol=1e-5, atol=1e-6)


def test_bfloat16_keeps_float32_where_it_matters(found, one):
    here = found[0][0]["equal_to_one"]
    assert here["dtypes"] == ["torch.float32"]
    assert {str(tensor.dtype) for tensor in here["bfloat16"]["model"].values()} == {"torch.float32"}
    assert here["bfloat16"]["losses"] == pytest.approx(one["losses"], rel=0.02)
    assert here["bfloat16"]["losses"] != pytest.approx(one["losses"], rel=1e-5)


def test_processes_draw_other_rows_and_other_noise(found):
    first, second = (found[0][rank]["equal_to_one"]["drawn"] for rank in range(2))
    assert [step for step, *_ in first] == [step for step, *_ in second] == list(range(6))
    seeds = [seed for *_, seed in first + second]
    assert len(set(seeds)) == 12


def test_no_row_comes_twice_in_an_epoch_and_all_come(found):
    first, second = (found[0][rank]["equal_to_one"]["drawn"] for rank in range(2))
    order = [row for (_, a, _), (_, b, _) in zip(first, second, strict=True) for row in a + b]
    assert len(order) == 48
    assert sorted(order[:41]) == list(range(41))
    assert len(set(order[41:])) == 7


def test_order_is_a_new_permutation_in_each_epoch():
    order = Order(5, 4, seed=0)
    rows = torch.cat([order(step) for step in range(5)]).view(4, 5).tolist()
    assert all(sorted(epoch) == list(range(5)) for epoch in rows)
    assert len({tuple(epoch) for epoch in rows}) > 1
    assert (
        torch.cat([Order(5, 4, 0)(step) for step in (3, 4)]).tolist() == [row for epoch in rows for row in epoch][12:]
    )
    with pytest.raises(ValueError, match="the dataset is empty"):
        Order(0, 4, seed=0)


def test_a_process_that_finds_no_number_stops_all_with_the_step_named(found):
    for rank in range(2):
        here = found[0][rank]["poisoned"]
        assert here["error"].startswith("the loss is nan at step 3; try a smaller")
        assert identical(here["left"]["model"], here["good"]["model"])  # of the last good step
        assert identical(here["left"]["ema"], here["good"]["ema"])


def test_stopped_and_resumed_is_bit_for_bit_as_never_stopped(found):
    for rank in range(2):
        here, never = found[0][rank]["resumed"], found[0][rank]["equal_to_one"]["fsdp"]
        assert here["losses"] == never["losses"]
        assert identical(here["model"], never["model"])
        assert identical(here["ema"], never["ema"])
        assert all(torch.equal(a, b) for a, b in zip(here["optimizer"], never["optimizer"], strict=True))


def test_saved_by_two_and_resumed_by_one(found, alone):
    results, folder = found
    snapshots = Snapshots(folder / "resumed", alone)
    made = Engine(two.model(), two.loss, two.CONFIG, Layout(), alone, 2)
    made.resume(snapshots, snapshots.newest())
    end = results[0]["resumed"]
    assert made.losses == end["losses"]
    assert identical(two.states(made)["model"], end["model"])
    assert identical(two.states(made)["ema"], end["ema"])
    assert all(torch.equal(a, b) for a, b in zip(two.states(made)["optimizer"], end["optimizer"], strict=True))


def test_killed_and_started_again_it_ends_at_the_same_bits(found, tmp_path):
    """One process of two is killed, then both, at some moment after the first checkpoint."""
    whole, killed = found[1], tmp_path
    for victims in ([1], [0, 1]):
        before = set(killed.glob("runs/tiny/step-*"))
        processes = two.start("recipe", killed)
        while set(killed.glob("runs/tiny/step-*")) <= before:
            assert processes[0].poll() is None, processes[0].communicate()
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        for victim in victims:
            processes[victim].send_signal(signal.SIGKILL)
        errors = [process.communicate(timeout=900)[1] for process in processes]
        assert [process.returncode for process in processes] == [-9 if n in victims else 1 for n in range(2)]
        if victims == [1]:
            assert "another process of the run has ended; start all of them again" in errors[0].splitlines()[-1]
    for process in two.start("recipe", killed):
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
    (one, _), (other, _) = (checkpoint.load(folder / "tiny.safetensors") for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
