import math

import pytest
import torch

from ditbook.diffusion import flow, likelihood, losses, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion


@pytest.fixture(params=["gaussian", "zero signal", "flow"])
def process(request):
    return {
        "gaussian": GaussianDiffusion(schedules.linear(1000)),
        "zero signal": GaussianDiffusion(schedules.zero_terminal_snr(schedules.linear(1000)), predicts="v"),
        "flow": flow.Flow(flow.uniform_times(1000)),
    }[request.param]


def test_images_of_bytes_are_refused(process):
    """Coefficients below 1 would be rounded to the type of the images, which is 0."""
    x, t = torch.full((2, 1, 3, 3), 200, dtype=torch.uint8), torch.tensor([3, 500])
    message = r"images of type torch.uint8; expected floating-point numbers in \[-1, 1\]: scale bytes by"
    with pytest.raises(ValueError, match=message):
        process.add_noise(x, t, torch.zeros(2, 1, 3, 3))
    with pytest.raises(ValueError, match=message):
        likelihood.dequantize(x, torch.Generator())
    for loss in (losses.denoising_loss, losses.loss_by_time):
        with pytest.raises(ValueError, match=r"images of type torch.uint8; .* in \[-1, 1\]: scale"):
            loss(lambda x, t: x, process, x, torch.Generator())
    if isinstance(process, GaussianDiffusion):
        for loss in (losses.simple_loss, losses.bound_loss):
            with pytest.raises(ValueError, match=message):
                loss(lambda x, t: x, process, x, t, torch.zeros(2, 1, 3, 3))


def test_scales_levels_and_clock_agree(process):
    assert process.scales(-1) == (1, 0)
    for i in (0, 3, 500, 999):
        a, b = process.scales(i)
        assert process.sigmas[i].item() == pytest.approx(b / a if a else math.inf, rel=1e-9)
    assert (process.sigmas.diff() > 0).all()
    assert (process.clock.diff() > 0).all()
    assert process.clock[0] > 0


def test_v_is_the_derivative_by_the_clock(process):
    x, eps = torch.tensor([0.7]).double(), torch.tensor([-1.2]).double()
    for i in (1, 500, 998):
        (a, b), (c, d) = process.scales(i - 1), process.scales(i + 1)
        slope = ((c - a) * x + (d - b) * eps) / (process.clock[i + 1] - process.clock[i - 1])
        a, b = process.scales(i)
        v = process.convert(x, a * x + b * eps, torch.tensor([i]), "x_start").v
        torch.testing.assert_close(v, slope, rtol=2e-3, atol=2e-3)


def test_other_levels(process):
    wanted = process.sigmas[[2, 30, 600]]
    found = process.at_sigmas(wanted)
    torch.testing.assert_close(found.sigmas, wanted, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.timesteps.double(), process.timesteps[[2, 30, 600]].double(), rtol=1e-5, atol=1e-5)
    between = process.at_sigmas((wanted[:-1] * wanted[1:]).sqrt()).timesteps
    assert process.timesteps[2] < between[0] < process.timesteps[30] < between[1] < process.timesteps[600]
    respaced = process.respace(10)
    again = respaced.at_sigmas(wanted)  # by the levels of the training process, not by the few that are left
    torch.testing.assert_close(again.timesteps, found.timesteps, rtol=1e-5, atol=1e-5)
    assert again.predicts == process.predicts


def test_infinite_levels():
    process = GaussianDiffusion(schedules.zero_terminal_snr(schedules.linear(1000)), predicts="v")
    sigmas = torch.tensor([0.5, 3.0, math.inf])
    again = process.at_sigmas(sigmas)
    assert again.timesteps[-1] == 999
    assert again.scales(2) == (0, 1)
    found = process.sigmas_of(again.timesteps, torch.zeros(3, 2)).flatten()
    torch.testing.assert_close(found, sigmas.float(), rtol=1e-4, atol=0)


def test_timesteps_and_levels_are_inverse():
    process = GaussianDiffusion(schedules.linear(1000))
    times = torch.tensor([0.0, 0.25, 17.0, 500.5, 999.0], dtype=torch.float64)
    sigmas = process.sigmas_of(times, torch.zeros(5, 1, 1, dtype=torch.float64))
    assert sigmas.shape == (5, 1, 1)
    torch.testing.assert_close(process.timesteps_of(sigmas.flatten()), times)
    half = (process.sigmas[500] * process.sigmas[501]).sqrt()
    assert sigmas[3].item() == pytest.approx(half.item(), rel=1e-9)
    assert process.timesteps_of(torch.tensor([1e-5, 1e5])).tolist() == [0, 999]
    assert process.respace(5).timesteps_of(half[None]).item() == pytest.approx(500.5)


def test_tables_are_cast_before_they_are_moved(process):
    x = torch.zeros(2, 3, dtype=torch.bfloat16, device="meta")
    index = torch.zeros(2, dtype=torch.int64, device="meta")
    found = process.coefficient("sigmas", index, x)
    assert (found.shape, found.dtype, found.device) == ((2, 1), x.dtype, x.device)
    assert process.training_timesteps(index).device == x.device


def test_fractions_of_timesteps_reach_the_model_as_float32():
    process = GaussianDiffusion(schedules.linear(1000)).at_sigmas(schedules.karras_sigmas(5, 0.02, 100.0))
    assert process.training_timesteps(torch.arange(5)).dtype == torch.float32
    whole = GaussianDiffusion(schedules.linear(1000)).training_timesteps(torch.arange(5))
    assert whole.dtype == torch.int64
