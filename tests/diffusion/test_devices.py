"""Losses and samplers on other devices: on `meta` a tensor from elsewhere, an `.item()` or a `.cpu()` raises."""

from functools import partial

import pytest
import torch
from torch import nn

from ditbook.diffusion import bound, flow, inversion, likelihood, losses, samplers, schedules, solvers, weighting
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import Autoguidance, ClassifierFreeGuidance, ClassifierGuidance, interval

DEVICES = [
    "meta",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")),
]
EVERYWHERE = [  # steps for every process
    solvers.euler,
    partial(solvers.heun, churn=5.0),
    solvers.dpm_solver,
    partial(solvers.dpm_solver, stochastic=True),
    solvers.unipc,
    flow.euler,
    flow.heun,
]
STEPS = [samplers.ddim, partial(samplers.ddim, eta=0.5), *EVERYWHERE] + [
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
def test_inversion(device, process):
    x, y = batch(device)
    out = inversion.invert(Small().to(device), x, process.respace(3), clip=1.0, y=y)
    assert (out.shape, out.device) == (x.shape, x.device)


@pytest.mark.parametrize("device", DEVICES)
def test_the_bound(device, process):
    x, y = batch(device)
    terms = bound.variational_bound(Small().to(device), process.respace(3), x, generator(), y=y)
    assert {(name, value.shape, value.device) for name, value in terms.items()} == {
        (name, (4,), x.device) for name in ("learned", "posterior", "beta")
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step", EVERYWHERE)
def test_sampling_along_straight_paths_and_between_timesteps(device, step, process):
    (x, y), model = batch(device), Small().to(device)

    def without_head(x, t, y):
        return model(x, t, y)[:, :1]

    levels = process.at_sigmas(schedules.karras_sigmas(4, 0.02, 100.0))
    for network, steps in ((without_head, flow.Flow(flow.uniform_times(4))), (model, levels)):
        out = samplers.sample(network, x, steps, step=step, clip=1.0, generator=generator(), y=y)
        assert (out.shape, out.device) == (x.shape, x.device)


@pytest.mark.parametrize("device", DEVICES)
def test_every_guidance(device, process):
    (x, y), model = batch(device), Small().to(device)
    in_between = interval(3.0, 100.0, 600.0)
    for guided in (
        ClassifierFreeGuidance(model, in_between, rescale=0.7),
        Autoguidance(model, Small().to(device), in_between, rescale=0.7),
        ClassifierGuidance(model, lambda x, t: model(x, t, torch.zeros_like(t)).flatten(1), process, 2.0),
    ):
        out = samplers.sample(guided, x, process.respace(3), y=y)
        assert (out.shape, out.device) == (x.shape, x.device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chosen", [weighting.min_snr, weighting.p2, weighting.uniform_v])
def test_a_weighted_training_step(device, chosen, process):
    model, (x, y) = Small().to(device), batch(device)
    losses.denoising_loss(model, process, x, generator(), dropout=0.1, weighting=chosen, y=y).backward()
    assert all(parameter.grad.device == x.device for parameter in model.parameters())


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_with_important_timesteps(device, process):
    model, (x, y) = Small().to(device), batch(device)
    sampler = bound.ImportantTimesteps(1000, x.device)
    t, weights = sampler.sample(len(x), generator())
    terms = losses.bound_loss(model, process, x, t, torch.zeros_like(x), reduction="none", y=y)
    sampler.update(t, terms)
    (weights * terms).mean().backward()
    assert (t.device, weights.device) == (x.device, x.device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("times", [flow.uniform, flow.logit_normal])
def test_a_training_step_along_straight_paths(device, times):
    model, (x, y) = Small().to(device), batch(device)

    class Headless(nn.Module):
        null_condition = model.null_condition

        def forward(self, x, t, y):
            return model(x, t, y)[:, :1]

    paths = flow.Flow(flow.uniform_times(4), shift=2.0)
    loss = flow.flow_loss(Headless(), paths, x, generator(), times=times, dropout=0.1, y=y)
    loss.backward()
    assert loss.device == x.device


@pytest.mark.parametrize("device", DEVICES)
def test_the_likelihood(device, process):
    (x, y), model = batch(device), Small().to(device)
    found = likelihood.log_likelihood(
        model, process.respace(3), likelihood.dequantize(x, generator()), generator(), y=y
    )
    assert (found.shape, found.device) == ((4,), x.device)
    assert likelihood.bits_per_dimension(found, 64).device == x.device
