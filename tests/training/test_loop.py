import dataclasses
import math
import re

import pytest
import torch

from ditbook import rng
from ditbook.diffusion import losses, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.models.dit import DiT, DiTConfig
from ditbook.training.loop import DivergedError, Stepper, TrainConfig, train
from ditbook.weights import checkpoint

DATA = {
    "image": torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-1, 1),
    "label": torch.arange(40) % 3,
}
DIFFUSION = GaussianDiffusion(schedules.linear(1000))
CONFIG = TrainConfig(steps=20, batch_size=8, warmup_steps=5, seed=3, ema_decay=0.9, weight_decay=0.01, grad_clip=1.0)


def make(seed=0):
    torch.manual_seed(seed)
    return DiT(DiTConfig(size=4, channels=1, patch=2, width=16, depth=2, heads=2, num_classes=3, learn_sigma=False))


def loss(model, batch, context):
    x, y = batch["image"], batch["label"]
    t = rng.randint(1000, (len(x),), context.generator, x.device)
    return losses.simple_loss(model, DIFFUSION, x, t, rng.randn(x.shape, context.generator, like=x), y=y)


def steps(count):
    return dataclasses.replace(CONFIG, steps=count)


def identical(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("save_every", [10, 3])
def test_stopped_and_resumed_is_bit_for_bit_as_never_stopped(tmp_path, save_every):
    whole = make()
    never = train(whole, loss, DATA, CONFIG)
    first = make()
    train(first, loss, DATA, steps(10), path=tmp_path / "c.safetensors", save_every=save_every)
    assert not identical(first, whole)
    torch.manual_seed(99)  # the global state of chance plays no part
    second = make(seed=1)  # nor does the state of the model before the checkpoint is read
    resumed = train(second, loss, DATA, CONFIG, path=tmp_path / "c.safetensors", save_every=save_every)
    assert identical(second, whole)
    assert identical(resumed.ema, never.ema)
    assert resumed.losses == never.losses
    assert len(never.losses) == 20


def test_killed_between_checkpoints_resumes_from_the_last(tmp_path):
    calls = 0

    def interrupted(model, batch, context):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return loss(model, batch, context)

    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(make(), interrupted, DATA, CONFIG, path=path, save_every=6)
    assert len(checkpoint.load(path)[0]["losses"]) == 12
    whole, resumed = make(), make(1)
    train(whole, loss, DATA, CONFIG)
    train(resumed, loss, DATA, CONFIG, path=path)
    assert identical(whole, resumed)


def test_same_seed_same_run_and_other_seed_another():
    first, second, other = make(), make(), make()
    assert train(first, loss, DATA, steps(5)).losses == train(second, loss, DATA, steps(5)).losses
    train(other, loss, DATA, dataclasses.replace(steps(5), seed=4))
    assert identical(first, second)
    assert not identical(first, other)


def poisoned(poison, at, broken=()):
    """The loss, multiplied by `poison` at one step; with `broken`, a list that receives every step taken after it."""

    def poison_one(model, batch, context):
        if context.step > at:
            broken.append(context.step)
        return loss(model, batch, context) * (poison if context.step == at else 1)

    return poison_one


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, poison):
    path, model, good = tmp_path / "c.safetensors", make(), make()
    with pytest.raises(DivergedError, match=rf"the loss is {poison} at step 7; try a smaller learning rate"):
        train(model, poisoned(poison, 7, []), DATA, CONFIG, path=path, save_every=5)
    train(good, loss, DATA, steps(7))
    assert identical(model, good)  # the weights are those of the last good step
    tensors, _ = checkpoint.load(path)
    assert len(tensors["losses"]) == 5
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    before = path.read_bytes()
    with pytest.raises(DivergedError, match="at step 10"):  # a resumed run diverges where the whole one would
        train(make(), poisoned(poison, 10, []), DATA, CONFIG, path=path, save_every=50)
    assert path.read_bytes() == before


def test_nothing_of_a_bad_step_is_left_although_the_host_hears_of_it_later():
    later = []
    stepper, good = Stepper(make(), poisoned(math.nan, 7, later), CONFIG), Stepper(make(), loss, CONFIG)
    batch = {name: tensor[:8] for name, tensor in DATA.items()}
    for _ in range(12):
        stepper.step(batch)
    for _ in range(7):
        good.step(batch)
    assert later == [8, 9, 10, 11]
    assert identical(stepper.model, good.model)
    assert identical(stepper.ema.model, good.ema.model)
    moments, wanted = (one.optimizer.state_dict()["state"] for one in (stepper, good))
    assert all(torch.equal(moments[k][name], value) for k in wanted for name, value in wanted[k].items())
    with pytest.raises(DivergedError, match="the loss is nan at step 7; try a smaller"):
        stepper.check()
    good.check()
    assert stepper.losses == good.losses


def test_a_run_of_many_steps_hears_of_a_bad_one_within_fifty():
    later = []
    with pytest.raises(DivergedError, match="at step 7;"):
        train(make(), poisoned(math.nan, 7, later), DATA, steps(1000))
    assert later[-1] == 49


def test_a_step_runs_on_the_meta_device_so_it_waits_for_nothing():
    stepper = Stepper(make().to("meta"), loss, dataclasses.replace(CONFIG, weight_decay=0.1))
    for _ in range(2):
        stepper.step(DATA)
    assert stepper.count == 2
    assert stepper.pending[1].is_meta
    assert all(parameter.grad.is_meta for parameter in stepper.model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_step_on_a_gpu_does_not_wait_for_it():
    stepper = Stepper(make().cuda(), loss, CONFIG)
    stepper.step(DATA)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stepper.step(DATA)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stepper.check()
    assert all(math.isfinite(value) for value in stepper.losses)


def made(generator):
    """A batch that is made, not drawn from a dataset."""
    x = rng.randn((8, 1, 4, 4), generator, like=torch.zeros(1))
    return {"image": x.clamp(-1, 1), "label": rng.randint(3, (8,), generator, x.device)}


def test_a_function_that_makes_batches_resumes_bit_for_bit_too(tmp_path):
    whole, second = make(), make(1)
    never = train(whole, loss, made, CONFIG)
    train(make(), loss, made, steps(9), path=tmp_path / "c.safetensors")
    resumed = train(second, loss, made, CONFIG, path=tmp_path / "c.safetensors")
    assert identical(second, whole)
    assert identical(resumed.ema, never.ema)
    assert resumed.losses == never.losses


def test_the_loss_hears_the_step_also_after_a_resume(tmp_path):
    heard = []

    def listening(model, batch, context):
        heard.append(context.step)
        return loss(model, batch, context)

    train(make(), listening, DATA, steps(3), path=tmp_path / "c.safetensors")
    train(make(), listening, DATA, steps(5), path=tmp_path / "c.safetensors")
    assert heard == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("data", [{}, {"image": torch.zeros(0, 1, 4, 4), "label": torch.zeros(0)}])
def test_empty_data(data):
    with pytest.raises(ValueError, match="the dataset is empty"):
        train(make(), loss, data, CONFIG)


def test_ragged_data():
    with pytest.raises(ValueError, match=re.escape("equally long, got {'image': 40, 'label': 39}")):
        train(make(), loss, {"image": DATA["image"], "label": DATA["label"][1:]}, CONFIG)


def test_checkpoint_of_another_configuration(tmp_path):
    path = tmp_path / "c.safetensors"
    train(make(), loss, DATA, steps(2), path=path)
    with pytest.raises(ValueError, match=r"was trained with batch_size 8, not 9; use another path"):
        train(make(), loss, DATA, dataclasses.replace(CONFIG, batch_size=9), path=path)


def test_checkpoint_with_more_steps_than_wanted(tmp_path):
    path = tmp_path / "c.safetensors"
    train(make(), loss, DATA, steps(4), path=path)
    with pytest.raises(ValueError, match=r"c\.safetensors holds 4 steps, more than 3; use another path"):
        train(make(), loss, DATA, steps(3), path=path)


def test_a_weight_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"weight": torch.zeros(2)}, {"family": "dit"})
    with pytest.raises(ValueError, match=r"c\.safetensors is no checkpoint of a training"):
        train(make(), loss, DATA, CONFIG, path=path)


def test_checkpoint_of_another_model(tmp_path):
    path = tmp_path / "c.safetensors"
    train(make(), loss, DATA, steps(2), path=path)
    torch.manual_seed(0)
    other = DiT(DiTConfig(size=4, channels=1, patch=2, width=24, depth=2, heads=2, num_classes=3, learn_sigma=False))
    with pytest.raises(ValueError, match=r"c\.safetensors belongs to another model"):
        train(other, loss, DATA, CONFIG, path=path)


def test_truncated_checkpoint_is_not_overwritten(tmp_path):
    path = tmp_path / "c.safetensors"
    train(make(), loss, DATA, steps(2), path=path)
    path.write_bytes(path.read_bytes()[:-10])
    broken = path.read_bytes()
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        train(make(), loss, DATA, CONFIG, path=path)
    assert path.read_bytes() == broken
