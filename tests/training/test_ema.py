import pytest
import torch
from torch import nn

from ditbook.training.ema import EMA


def filled(value):
    model = nn.Linear(2, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


@pytest.mark.parametrize("limit", [0.0, 0.3, 0.995])
def test_average_follows_the_formula(limit):
    model = filled(1.0)
    ema, wanted = EMA(model, limit), 1.0
    for step in range(40):
        value = float(step % 7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        ema.update(model, step)
        decay = min(limit, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
        for parameter in ema.model.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, wanted), rtol=1e-5, atol=1e-6)


def test_the_average_is_a_copy_that_takes_no_gradient():
    model = filled(1.0)
    ema = EMA(model.train(), 0.9)
    assert not ema.model.training
    assert model.training
    assert all(not parameter.requires_grad for parameter in ema.model.parameters())
    with torch.no_grad():
        model.weight.fill_(5.0)
    assert (ema.model.weight == 1).all()
    ema.update(model, 1000)
    assert (model.weight == 5).all()


def test_a_skipped_step_leaves_the_average_as_it_is():
    model = filled(1.0)
    ema = EMA(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(5.0)
    ema.update(model, 1000, skip=torch.ones(()))
    assert (ema.model.weight == 1).all()
    ema.update(model, 1000, skip=torch.zeros(()))
    torch.testing.assert_close(ema.model.weight, torch.full((3, 2), 1.4))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        EMA(nn.Linear(1, 1), decay)
