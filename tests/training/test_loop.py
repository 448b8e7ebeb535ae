import dataclasses
import re

import pytest
import torch
from torch import nn

from ditbook.diffusion import losses, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.models.dit import DiT, DiTConfig
from ditbook.training.loop import DivergedError, TrainConfig, train
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


def loss(model, batch, generator):
    x, y = batch["image"], model.label_embed.drop(batch["label"], generator)
    t = torch.randint(1000, (len(x),), generator=generator)
    eps = torch.randn(x.shape, generator=generator)
    return losses.simple_loss(model, DIFFUSION, x, t, eps, y=y)


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

    def interrupted(model, batch, generator):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return loss(model, batch, generator)

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


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, poison):
    calls = 0

    def poisoned(model, batch, generator):
        nonlocal calls
        calls += 1
        return loss(model, batch, generator) * (poison if calls == 8 else 1)

    path, model, good = tmp_path / "c.safetensors", make(), make()
    with pytest.raises(DivergedError, match=rf"the loss is {poison} at step 7; try a smaller learning rate"):
        train(model, poisoned, DATA, CONFIG, path=path, save_every=5)
    train(good, loss, DATA, steps(7))
    assert identical(model, good)  # the weights are those of the last good step
    tensors, _ = checkpoint.load(path)
    assert len(tensors["losses"]) == 5
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    before = path.read_bytes()
    calls = 2  # on resuming, the same step diverges again
    with pytest.raises(DivergedError, match="at step 10"):
        train(make(), poisoned, DATA, CONFIG, path=path, save_every=50)
    assert path.read_bytes() == before


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_taken():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    with pytest.raises(DivergedError, match=r"the gradient's norm is inf at step 0; try a smaller learning rate"):
        train(model, lambda m, b, g: m.weight.sqrt().sum(), {"x": torch.zeros(4, 1)}, CONFIG)
    assert model.weight.item() == 0


def test_first_step_of_adamw_with_warm_up_and_decay():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    config = TrainConfig(steps=1, batch_size=2, learning_rate=0.1, warmup_steps=4, weight_decay=0.5, ema_decay=0.9)
    trained = train(model, lambda m, b, g: (3 * m.weight).sum(), {"x": torch.zeros(4, 1)}, config)
    rate = 0.1 / 4  # of the first of four steps of warm-up; Adam's first step has the length of the rate
    assert model.weight.item() == pytest.approx(2 * (1 - rate * 0.5) - rate, rel=1e-5)
    assert trained.ema.weight.item() == pytest.approx(0.1 * 2 + 0.9 * model.weight.item(), rel=1e-5)
    assert trained.losses == [6.0]


@pytest.mark.parametrize(("limit", "wanted"), [(None, 300.0), (0.5, 0.5)])
def test_gradients_are_clipped_on_request(limit, wanted):
    model = nn.Linear(1, 1, bias=False)
    config = TrainConfig(steps=1, batch_size=2, grad_clip=limit)
    train(model, lambda m, b, g: (300 * m.weight).sum(), {"x": torch.zeros(4, 1)}, config)
    assert model.weight.grad.norm().item() == pytest.approx(wanted, rel=1e-4)


def test_batches_come_from_all_the_data_together():
    seen = set()

    def look(model, batch, generator):
        assert torch.equal(batch["double"], 2 * batch["x"])
        assert batch["x"].shape == (16, 1)
        seen.update(batch["x"].flatten().tolist())
        return model(batch["x"]).square().mean()

    x = torch.arange(10.0)[:, None]
    train(nn.Linear(1, 1), look, {"x": x, "double": 2 * x}, TrainConfig(steps=10, batch_size=16))
    assert seen == set(range(10))


def test_training_lowers_the_loss():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = {"x": x, "y": x @ torch.tensor([[1.0], [-2.0], [0.5]])}
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    config = TrainConfig(steps=300, batch_size=32, learning_rate=0.05, warmup_steps=10, ema_decay=0.9)
    trained = train(model, lambda m, b, g: (m(b["x"]) - b["y"]).square().mean(), data, config)
    assert trained.losses[-1] < 1e-3 < trained.losses[0]
    assert (trained.ema(data["x"]) - data["y"]).square().mean() < 1e-3


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
