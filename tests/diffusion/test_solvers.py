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
        t = diffusion.timesteps_of(torch.tensor([sigma], dtype=torch.float64)).float().expand(len(x))
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
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
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
