import math

import pytest
import torch

from ditbook.diffusion import flow, inversion, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

MEAN, STD = 0.4, 0.5  # of data that is normal, whose flow is known


def images():
    return torch.linspace(-1, 1.8, 12, dtype=torch.float64).view(3, 1, 2, 2)


def whole():
    return GaussianDiffusion(schedules.linear(1000, 1e-5, 0.02), predicts="x_start")


def best(process):
    """The best prediction of x₀ for data N(MEAN, STD²)."""

    def model(x, t):
        sigma = process.sigmas_of(t, x)
        start = x * (1 + sigma**2).sqrt()
        return MEAN + STD**2 / (STD**2 + sigma**2) * (start - MEAN)

    return model


def exact(x, process):
    """The solution keeps the number of standard deviations of x/a, whose variance is STD² + σ²."""
    a, sigma = process.scales(process.num_steps - 1)[0], process.sigmas[-1].item()
    return a * (MEAN + math.sqrt(STD**2 + sigma**2) / STD * (x - MEAN))


def test_the_error_on_a_gaussian_is_of_first_order():
    errors = []
    for count in (100, 400):
        process = whole().at_sigmas(schedules.karras_sigmas(count, 1e-3, 50.0))
        found = inversion.invert(best(whole()), images(), process)
        errors.append((found - exact(images(), process)).abs().max().item())
    assert errors[1] < 0.03  # of values up to 3
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(1, abs=0.15)


def test_a_round_trip_comes_nearer_with_more_steps(mixture):
    process, x = whole(), images()
    model = mixture.model(process)
    errors = []
    for count in (10, 40, 160):
        few = process.respace(count)
        back = samplers.sample(model, inversion.invert(model, x, few), few)
        errors.append((back - x).square().mean().sqrt().item())
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]
    assert errors[2] < 0.05


@pytest.mark.equation("12.11", of="ditbook.diffusion.inversion.ddim_inverse", against="x/a + (σ′ − σ) ε, written out")
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_a_step_up_is_eulers_in_x_over_a(predicts):
    process = GaussianDiffusion(schedules.linear(1000), predicts=predicts).respace(6)

    def model(x, t):
        return torch.tanh(x) + 0.001 * t[0]

    run, x = samplers.Run(model, process, {}, None, None), images()
    for i in range(6):
        low = max(i - 1, 0)
        a, sigma = process.scales(i - 1)[0], process.sigmas[low].item() if i else 0.0
        at_low = x if i else process.scales(0)[0] * x
        index = torch.full((3,), low)
        eps = process.predict(model(at_low, process.training_timesteps(index)), at_low, index).eps
        wanted = process.scales(i)[0] * (x / a + (process.sigmas[i].item() - sigma) * eps)
        x = inversion.ddim_inverse(x, i, run)
        torch.testing.assert_close(x, wanted)


def test_the_model_is_called_once_for_each_level_and_gets_its_condition():
    asked, process = [], whole().respace(5)

    def model(x, t, y):
        asked.append((t[0].item(), y.tolist()))
        return 0 * x

    inversion.invert(model, images(), process, y=torch.tensor([4, 5, 6]))
    levels = process.timesteps.tolist()
    assert asked == [(t, [4, 5, 6]) for t in [levels[0], *levels[:-1]]]


def test_on_a_flow_up_to_pure_noise():
    """Straight paths to a single image: the velocity is constant, and both directions are exact."""
    image, paths = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64), flow.Flow(flow.uniform_times(8))
    target = images()

    def model(x, t):
        return (x - image) / (t.to(x.dtype) / 1000).view(-1, 1, 1, 1)

    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0), dtype=target.dtype)
    drawn = samplers.sample(model, noise, paths)
    torch.testing.assert_close(drawn, image.expand_as(drawn))
    found = inversion.invert(lambda x, t: -target, target, paths)
    torch.testing.assert_close(found, 0 * target)


def test_clipping_bounds_the_predicted_image():
    process = whole().respace(4)
    found = inversion.invert(lambda x, t: 3 * torch.ones_like(x), images(), process, clip=1.0)
    wanted = inversion.invert(lambda x, t: torch.ones_like(x), images(), process)
    torch.testing.assert_close(found, wanted)
