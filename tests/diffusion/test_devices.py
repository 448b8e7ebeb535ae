"""Losses and samplers on other devices: on `meta` a tensor from elsewhere, an `.item()` or a `.cpu()` raises."""

from functools import partial

import pytest
import torch
from torch import nn

from ditbook.diffusion import bound, losses, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import ClassifierFreeGuidance

DEVICES = [
    "meta",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")),
]
STEPS = [samplers.ddim, partial(samplers.ddim, eta=0.5)] + [
    partial(samplers.ddpm, variance=variance) for variance in ("beta", "posterior", "learned")
]


class Small(nn.Module):
    """A conditional model with a variance head."""

    def __init__(self):
        super().__init__()
        self.conv, self.label, self.time = nn.Conv2d(1, 2, 3, padding=1), nn.Embedding(11, 2), nn.Linear(1, 2)

    def null_condition(self, y):
        return {"y": torch.full_like(y, 10)}

    def forward(self, x, t, y):
        return self.conv(x) + (self.label(y) + self.time(t[:, None].to(x.dtype)))[:, :, None, None]


@pytest.fixture
def process():
    return GaussianDiffusion(schedules.linear(1000), learn_sigma=True)


def generator():
    return torch.Generator().manual_seed(0)  # on the CPU, wherever the model is


def batch(device):
    return torch.empty(4, 1, 8, 8, device=device), torch.zeros(4, dtype=torch.int64, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step(device, process):
    model, (x, y) = Small().to(device), batch(device)
    loss = losses.denoising_loss(model, process, x, generator(), dropout=0.1, y=y)
    loss.backward()
    assert loss.shape == ()
    assert all(parameter.grad.device == x.device for parameter in model.parameters())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_a_training_step_of_each_parameterization(device, predicts):
    process = GaussianDiffusion(schedules.linear(1000), predicts=predicts)
    x, y = batch(device)
    loss = losses.denoising_loss(lambda x, t, y: 2 * x, process, x, generator(), y=y)
    assert loss.device == x.device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step", STEPS)
def test_guided_sampling(device, step, process):
    x, y = batch(device)
    model = ClassifierFreeGuidance(Small().to(device), 2.0)
    out = samplers.sample(model, x, process.respace(3), step=step, clip=1.0, generator=generator(), y=y)
    assert (out.shape, out.device) == (x.shape, x.device)


@pytest.mark.parametrize("device", DEVICES)
def test_the_bound(device, process):
    x, y = batch(device)
    terms = bound.variational_bound(Small().to(device), process.respace(3), x, generator(), y=y)
    assert {(name, value.shape, value.device) for name, value in terms.items()} == {
        (name, (4,), x.device) for name in ("learned", "posterior", "beta")
    }
