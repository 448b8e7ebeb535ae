import math
from functools import partial
from itertools import pairwise, product

import pytest
import torch

from ditbook.diffusion import flow, samplers, schedules, solvers
from ditbook.diffusion.gaussian import GaussianDiffusion

ALL = [
    solvers.euler,
    solvers.heun,
    solvers.dpm_solver,
    *[partial(solvers.unipc, order=order) for order in (1, 2, 3, 4)],
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(seed, *shape):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def smooth(x, t):
    return 0.5 * torch.tanh(x) + 0.3 * torch.cos(0.005 * t.to(x.dtype)).view(-1, 1, 1, 1)


def trajectory(step, process, model, x, generator=None):
    return torch.stack([f.x for f in samplers.progressive(model, x, process, step=step, generator=generator)])


@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_eulers_step_is_ddim(predicts):
    process, x = GaussianDiffusion(schedules.linear(1000), predicts=predicts).respace(10), noise(0, 2, 1, 3, 3)
    wanted = trajectory(samplers.ddim, process, smooth, x)
    torch.testing.assert_close(trajectory(solvers.euler, process, smooth, x), wanted, rtol=1e-9, atol=1e-9)


def edm(model, x, sigmas, diffusion, churn, low, high, inflate, generator, second_order):
    """Algorithm 2 of Karras et al. 2022 as it is printed, with x scaled by √(1 + σ²) where the model is called."""

    def denoised(x, sigma):
        scaled = x / math.sqrt(1 + sigma**2)
        t = diffusion.timesteps_of(torch.tensor([sigma])).float().expand(len(x))
        return x - sigma * model(scaled, t)

    levels = [*sigmas.flip(0).tolist(), 0.0]
    x = math.sqrt(1 + levels[0] ** 2) * x
    for now, after in pairwise(levels):
        gamma = min(churn / len(sigmas), math.sqrt(2) - 1) if low <= now <= high else 0.0
        raised = now + gamma * now
        if gamma:
            fresh = inflate * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + math.sqrt(raised**2 - now**2) * fresh
        slope = (x - denoised(x, raised)) / raised
        ahead = x + (after - raised) * slope
        if after and second_order:
            slope_ahead = (ahead - denoised(ahead, after)) / after
            ahead = x + (after - raised) * (slope / 2 + slope_ahead / 2)
        x = ahead
    return x


@pytest.mark.equation("12.6", of="ditbook.diffusion.solvers.heun", against="Karras et al., algorithm 2 as printed")
@pytest.mark.parametrize("churn", [0.0, 3.0, 40.0])
@pytest.mark.parametrize("step", [solvers.euler, solvers.heun])
def test_churn_is_algorithm_2(step, churn):
    diffusion = GaussianDiffusion(schedules.linear(1000))
    process = diffusion.at_sigmas(schedules.karras_sigmas(12, 0.02, 60.0))
    options = {"churn": churn, "low": 0.05, "high": 30.0, "inflate": 1.007}
    x = noise(0, 2, 1, 3, 3)
    found = samplers.sample(smooth, x, process, step=partial(step, **options), generator=seeded(5))
    wanted = edm(smooth, x, process.sigmas, diffusion, *options.values(), seeded(5), step is solvers.heun)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)
    if churn:
        still = samplers.sample(smooth, x, process, step=step)
        assert not torch.allclose(found, still, atol=0.01)


def at_the_lowest_level(step, count, mixture):
    """Where `count` levels from σ = 80 to 0.02 take a row of points, before the last step, to 0."""
    whole = GaussianDiffusion(schedules.linear(1000, 1e-5, 0.02), predicts="x_start")
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    process = whole.at_sigmas(schedules.karras_sigmas(count, 0.02, 80.0))
    return trajectory(step, process, mixture.model(whole), x)[-2]


@pytest.fixture(scope="module")
def exact(mixture):
    return at_the_lowest_level(flow.heun, 1500, mixture)


@pytest.mark.parametrize(
    ("step", "order"),
    [
        (solvers.euler, 1),
        (flow.euler, 1),
        (solvers.heun, 2),
        (flow.heun, 2),
        (solvers.dpm_solver, 2),
        (partial(solvers.unipc, order=1), 2),
        (partial(solvers.unipc, order=2), 3),
        (solvers.unipc, 4),
    ],
)
def test_order_of_convergence(step, order, mixture, exact):
    """A method of order p makes the error 4ᵖ times smaller with 160 steps than with 40."""
    few, many = ((at_the_lowest_level(step, count, mixture) - exact).abs().max().item() for count in (40, 160))
    slope = math.log(few / many, 4)
    assert slope > order - 0.3
    assert slope < order + 0.7


def test_calls_of_the_model(predicts_start, mixture):
    calls = []
    model = mixture.model(predicts_start)

    def counted(x, t):
        calls.append(t[0].item())
        return model(x, t)

    process, x = predicts_start.respace(10), noise(0, 2, 3)
    for step, count in [(solvers.euler, 10), (solvers.heun, 19), *[(step, 10) for step in ALL[2:]]]:
        calls.clear()
        samplers.sample(counted, x, process, step=step)
        assert len(calls) == count
        assert sorted(set(calls)) == process.timesteps.tolist()


def test_the_first_stochastic_step_is_ddim_with_eta_one(predicts_start, mixture):
    process, x, model = predicts_start.respace(10), noise(0, 2, 3), mixture.model(predicts_start)
    found, wanted = (
        trajectory(step, process, model, x, seeded())[0]
        for step in (partial(solvers.dpm_solver, stochastic=True), partial(samplers.ddim, eta=1.0))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_stochastic_samples_have_the_moments_of_the_data(predicts_start, mixture):
    x, model = noise(0, 20_000, 1), mixture.model(predicts_start)
    process = predicts_start.at_sigmas(schedules.karras_sigmas(40, 0.02, 100.0))
    mean = (mixture.weights * mixture.means).sum()
    variance = (mixture.weights * (mixture.stds**2 + mixture.means**2)).sum() - mean**2
    for step in (
        partial(solvers.dpm_solver, stochastic=True),
        partial(solvers.heun, churn=20.0, low=0.05, high=50.0),
    ):
        drawn = samplers.sample(model, x, process, step=step, generator=seeded(1))
        assert drawn.mean().item() == pytest.approx(mean.item(), abs=0.03)
        assert drawn.var().item() == pytest.approx(variance.item(), rel=0.05)


@pytest.mark.parametrize("predicts", ["x_start", "v"])
@pytest.mark.parametrize("step", [*ALL, partial(solvers.dpm_solver, stochastic=True), partial(solvers.heun, churn=9.0)])
def test_from_pure_noise(step, predicts):
    """At zero signal σ is infinite: the first step is that of `ddim`, and nothing after it is not finite."""
    process = GaussianDiffusion(schedules.zero_terminal_snr(schedules.linear(1000)), predicts=predicts).respace(8)
    assert process.sigmas[-1] == math.inf
    x = noise(0, 2, 1, 3, 3)
    found = trajectory(step, process, smooth, x, seeded())
    assert found.isfinite().all()
    if step in (solvers.euler, solvers.heun, solvers.dpm_solver):
        torch.testing.assert_close(found[0], trajectory(samplers.ddim, process, smooth, x)[0])


@pytest.mark.parametrize("step", ALL[1:])
def test_on_a_flow_too(step, mixture):
    """Fifty steps from pure noise along straight paths, against six hundred of Heun's steps along the velocity."""
    process = flow.Flow(flow.uniform_times(50), predicts="x_start")
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    exact = samplers.sample(mixture.model(process), x, process.respace(600), step=flow.heun)
    first = samplers.sample(mixture.model(process), x, process, step=flow.euler)
    error = (samplers.sample(mixture.model(process), x, process, step=step) - exact).abs().max()
    assert error < (first - exact).abs().max() / 3


def test_multistep_methods_use_the_levels_they_have_seen(predicts_start, mixture):
    """After steps of another method they go on from its predictions, and the result is as good."""
    x, model = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None], mixture.model(predicts_start)
    process = predicts_start.at_sigmas(schedules.karras_sigmas(60, 0.02, 100.0))
    many = predicts_start.at_sigmas(schedules.karras_sigmas(400, 0.02, 100.0))
    exact = samplers.sample(model, x, many, step=flow.heun)
    for step, other in product((solvers.dpm_solver, solvers.unipc), (solvers.heun, samplers.ddim)):

        def mixed(x, i, run, step=step, other=other):
            return (other if i % 7 == 3 else step)(x, i, run)

        error = (samplers.sample(model, x, process, step=mixed) - exact).abs().max()
        assert error < 0.01  # 0.018 with a prediction of another level


@pytest.mark.parametrize("order", [0, 5, 2.5])
def test_unknown_order(order, predicts_start):
    step = partial(solvers.unipc, order=order)
    with pytest.raises(ValueError, match="order must lie in 1 to 4"):
        samplers.sample(smooth, noise(0, 1, 1, 2, 2), predicts_start.respace(3), step=step)


def test_fresh_noise_needs_a_generator(predicts_start):
    for step in (partial(solvers.dpm_solver, stochastic=True), partial(solvers.euler, churn=3.0)):
        with pytest.raises(ValueError, match="pass generator"):
            samplers.sample(smooth, noise(0, 1, 1, 2, 2), predicts_start.respace(3), step=step)


@pytest.mark.equation(
    "12.2", of="ditbook.diffusion.solvers.euler", against="the fraction of a mixture to the left of each path"
)
def test_short_steps_keep_the_fraction_to_the_left(mixture):
    """In one dimension the solution keeps its place among all: its distribution function stays what it was."""

    def below(x, a, b):
        return torch.special.ndtr((x - a * mixture.means) / ((a * mixture.stds) ** 2 + b**2).sqrt()) @ mixture.weights

    whole = GaussianDiffusion(schedules.linear(1000, 1e-5, 0.02), predicts="x_start")
    x, process = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None], None
    errors = []
    for count in (400, 1600):
        process = whole.at_sigmas(schedules.karras_sigmas(count, 0.02, 80.0))
        found = trajectory(solvers.euler, process, mixture.model(whole), x)
        ends = [below(image, *process.scales(i)) for image, i in ((x, count - 1), (found[-2], 0))]
        errors.append((ends[0] - ends[1]).abs().max().item())
    assert errors[1] < 0.003
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


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
