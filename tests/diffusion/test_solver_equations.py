import math
from itertools import pairwise

import pytest
import torch

from ditbook.diffusion import samplers, schedules, solvers
from ditbook.diffusion.gaussian import GaussianDiffusion


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integrated(start, end, function):
    """∫ eᵘ f(u) du by the midpoint rule."""
    u = start + (end - start) * (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    return (u.exp() * function(u)).mean().item() * (end - start)


@pytest.mark.equation(
    "12.7", of="ditbook.diffusion.solvers.dpm_solver", against="the integral in small pieces, for x₀ held and exact"
)
def test_variation_of_constants():
    process = GaussianDiffusion(schedules.linear(1000), predicts="x_start").respace(6)
    x = noise(0, 2, 1, 2, 2)
    (a, b), (a_next, b_next) = process.scales(4), process.scales(3)
    start, end = math.log(a / b), math.log(a_next / b_next)
    run = samplers.Run(lambda x, t: torch.full_like(x, 0.3), process, {}, None, None)
    held = b_next / b * x + b_next * integrated(start, end, lambda u: torch.full_like(u, 0.3))
    torch.testing.assert_close(solvers.dpm_solver(x, 4, run), held, rtol=1e-7, atol=1e-7)
    mean, std, size = 0.4, 0.5, 1.2  # data N(mean, std²): its solution keeps the number of deviations `size`

    def along(u):  # the best x₀ on that solution
        return mean + std**2 / (std**2 + (-2 * u).exp()).sqrt() * size

    before, after = (
        scale * (mean + math.sqrt(std**2 + (b / a) ** 2) * size)
        for scale, b, a in ((a, b, a), (a_next, b_next, a_next))
    )
    assert b_next / b * before + b_next * integrated(start, end, along) == pytest.approx(after, abs=1e-7)


def moments(start, end, x_start, size, pieces=20_000):
    """Mean and deviation of x/a where (12.3) with η = 1 leads it from `size` at σ = `start`, if x₀ is held."""
    levels = start * (end / start) ** (torch.arange(pieces + 1, dtype=torch.float64) / pieces)
    mean, variance = size, 0.0
    for now, after in pairwise(levels.tolist()):
        middle, shorter = (now + after) / 2, after - now
        mean += 2 * (mean - x_start) / middle * shorter  # ε = (x/a − x₀) / σ
        variance += 4 * variance / middle * shorter - 2 * middle * shorter
    return mean, math.sqrt(variance)


@pytest.mark.equation(
    "12.9", of="ditbook.diffusion.solvers.dpm_solver", against="mean and variance of (12.3), in small pieces"
)
def test_a_stochastic_step_has_the_moments_of_the_equation():
    """With x₀ held where the line through two predictions is half a step further on."""
    process = GaussianDiffusion(schedules.linear(1000), predicts="x_start").respace(8)
    before, now = -0.2, 0.3
    lambdas, (a, _), (a_next, _) = -process.sigmas.log(), process.scales(4), process.scales(3)
    half_a_step_on = now + (now - before) / (lambdas[4] - lambdas[5]) * (lambdas[3] - lambdas[4]) / 2
    x, ends = torch.tensor([[0.7]], dtype=torch.float64), []
    for fresh in (torch.zeros_like, torch.ones_like):
        run = samplers.Run(lambda x, t: torch.full_like(x, before), process, {}, None, None)
        run.denoise(x, 5)
        run.model, run.noise = lambda x, t: torch.full_like(x, now), fresh
        ends.append(solvers.dpm_solver(x, 4, run, stochastic=True).item() / a_next)
    start, end = process.sigmas[[4, 3]].tolist()
    mean, deviation = moments(start, end, half_a_step_on.item(), x.item() / a)
    assert ends[0] == pytest.approx(mean, rel=1e-3)
    assert ends[1] - ends[0] == pytest.approx(deviation, rel=1e-3)


@pytest.mark.equation(
    "12.10", of="ditbook.diffusion.solvers.unipc", against="polynomials in λ, integrated in small pieces"
)
@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_predictor_and_corrector_are_exact_on_polynomials(order):
    """Where x₀ is a polynomial in λ, of the degree that the corrector's points determine, a step makes no error."""
    process = GaussianDiffusion(schedules.linear(1000), predicts="x_start").at_sigmas(
        schedules.karras_sigmas(8, 0.1, 20.0)
    )
    lambdas = -process.sigmas.log()

    def polynomial(u):
        return 0.2 + 0.3 * u - 0.1 * u**2 + (0.04 * u**3 if order > 2 else 0) + (0.02 * u**4 if order > 3 else 0)

    def model(x, t):
        return torch.full_like(x, polynomial(lambdas[(process.timesteps - t[0]).abs().argmin()]).item())

    run, x = samplers.Run(model, process, {}, None, None), noise(0, 2, 3)
    for i in reversed(range(1, 8)):
        b, b_next = process.scales(i)[1], process.scales(i - 1)[1]
        found = solvers.unipc(x, i, run, order=order)
        wanted = b_next / b * x + b_next * integrated(lambdas[i].item(), lambdas[i - 1].item(), polynomial)
        if order <= i <= 8 - order:  # a full past, and not yet the lower orders of the end
            torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)
        x = found
