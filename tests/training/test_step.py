"""What one step does to a model of one weight, and how the learning rate follows from the step."""

import math

import pytest
import torch
from torch import nn

from ditbook.training.loop import DivergedError, TrainConfig, lr_multiplier, train


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_taken():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    with pytest.raises(DivergedError, match=r"the gradient's norm is inf at step 0; try a smaller learning rate"):
        train(model, lambda m, b, c: m.weight.sqrt().sum(), {"x": torch.zeros(4, 1)}, TrainConfig(steps=20))
    assert model.weight.item() == 0


def test_first_step_of_adamw_with_warm_up_and_decay():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    config = TrainConfig(steps=1, batch_size=2, learning_rate=0.1, warmup_steps=4, weight_decay=0.5, ema_decay=0.9)
    trained = train(model, lambda m, b, c: (3 * m.weight).sum(), {"x": torch.zeros(4, 1)}, config)
    rate = 0.1 / 4  # of the first of four steps of warm-up; Adam's first step has the length of the rate
    assert model.weight.item() == pytest.approx(2 * (1 - rate * 0.5) - rate, rel=1e-5)
    assert trained.ema.weight.item() == pytest.approx(0.1 * 2 + 0.9 * model.weight.item(), rel=1e-5)
    assert trained.losses == [6.0]


@pytest.mark.parametrize(("limit", "wanted"), [(None, 300.0), (0.5, 0.5)])
def test_gradients_are_clipped_on_request(limit, wanted):
    model = nn.Linear(1, 1, bias=False)
    config = TrainConfig(steps=1, batch_size=2, grad_clip=limit)
    train(model, lambda m, b, c: (300 * m.weight).sum(), {"x": torch.zeros(4, 1)}, config)
    assert model.weight.grad.norm().item() == pytest.approx(wanted, rel=1e-4)


def test_batches_come_from_all_the_data_together():
    seen = set()

    def look(model, batch, context):
        assert torch.equal(batch["double"], 2 * batch["x"])
        assert batch["x"].shape == (16, 1)
        seen.update(batch["x"].flatten().tolist())
        return model(batch["x"]).square().mean()

    x = torch.arange(10.0)[:, None]
    train(nn.Linear(1, 1), look, {"x": x, "double": 2 * x}, TrainConfig(steps=10, batch_size=16))
    assert seen == set(range(10))


def test_the_hook_comes_after_the_optimizer_and_before_the_average():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)

    def clamp(model):
        model.weight.data.clamp_(max=1.5)

    config = TrainConfig(steps=1, batch_size=2, learning_rate=0.1, warmup_steps=0, ema_decay=0.9)
    trained = train(model, lambda m, b, c: m.weight.sum(), {"x": torch.zeros(4, 1)}, config, after_step=clamp)
    assert model.weight.item() == 1.5
    assert trained.ema.weight.item() == pytest.approx(0.1 * 2 + 0.9 * 1.5)


def test_training_lowers_the_loss():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = {"x": x, "y": x @ torch.tensor([[1.0], [-2.0], [0.5]])}
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    config = TrainConfig(steps=300, batch_size=32, learning_rate=0.05, warmup_steps=10, ema_decay=0.9)
    trained = train(model, lambda m, b, c: (m(b["x"]) - b["y"]).square().mean(), data, config)
    assert trained.losses[-1] < 1e-3 < trained.losses[0]
    assert (trained.ema(data["x"]) - data["y"]).square().mean() < 1e-3


@pytest.mark.equation("3.13", of="ditbook.training.loop.lr_multiplier", against="equation 3 of the paper")
def test_the_rate_of_the_paper():
    width, warmup = 512, 4000
    peak = width**-0.5 * warmup**-0.5
    config = TrainConfig(warmup_steps=warmup, decay="inverse_sqrt")
    for step in (1, 2, 100, 3999, 4000, 4001, 100_000):
        wanted = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert peak * lr_multiplier(step - 1, config) == pytest.approx(wanted, rel=1e-12)


def test_the_rate_without_decay_and_without_warm_up():
    config = TrainConfig(warmup_steps=4)
    assert [lr_multiplier(step, config) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert lr_multiplier(0, TrainConfig(warmup_steps=0)) == 1
    assert lr_multiplier(3, TrainConfig(warmup_steps=0, decay="inverse_sqrt")) == pytest.approx(1 / math.sqrt(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps and batch_size must be positive, got 0 and 128"),
        ({"batch_size": -1}, "steps and batch_size must be positive, got 1000 and -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"warmup_steps": -1}, "warmup_steps and weight_decay not negative"),
        ({"weight_decay": -0.1}, "warmup_steps and weight_decay not negative"),
        ({"decay": "cosine"}, "no decay 'cosine'; there are none and inverse_sqrt"),
        ({"grad_clip": 0.0}, "grad_clip must be positive or None, got 0.0"),
    ],
)
def test_hyperparameters_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)
