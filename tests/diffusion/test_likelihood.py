import math

import pytest
import torch

from ditbook.diffusion import flow, likelihood, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

MEAN, STD = 0.4, 0.5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(seed, *shape):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def processes(count):
    levels = schedules.karras_sigmas(count, 0.01, 150.0)
    whole = GaussianDiffusion(schedules.linear(1000), predicts="x_start")
    return whole.at_sigmas(levels), flow.Flow(torch.linspace(0.01, 1, count, dtype=torch.float64), predicts="x_start")


def scales(process, t, x):
    """a and b at the timesteps that a model is called with."""
    if isinstance(process, flow.Flow):
        b = (t.to(x.dtype) / 1000).view(-1, *[1] * (x.ndim - 1))
        return 1 - b, b
    sigma = process.sigmas_of(t, x)
    return 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()


@pytest.mark.equation(
    "11.15", of="ditbook.diffusion.likelihood.log_likelihood", against="a linear flow of normal data, in closed form"
)
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_for_normal_data(kind, seed):
    """Noise at the last level is pushed through a linear map that is known, to the density at the lowest level."""
    process = processes(400)[kind]

    def model(x, t):
        a, b = scales(process, t, x)
        return MEAN + a * STD**2 / (a**2 * STD**2 + b**2) * (x - a * MEAN)

    x = MEAN + STD * noise(5, 7, 1, 3, 3)
    found = likelihood.log_likelihood(model, process, x, seeded(seed))
    (a, b), (a_end, b_end) = process.scales(0), process.scales(process.num_steps - 1)
    start, end = math.hypot(STD, b / a), math.hypot(a_end * STD, b_end)  # of x / a, and of x at the end
    pushed = torch.distributions.Normal(MEAN - a_end * MEAN * start / end, start / end)
    torch.testing.assert_close(found, pushed.log_prob(x).flatten(1).sum(1), rtol=0, atol=2e-3)
    assert end == pytest.approx(1, abs=1e-3)
    data = torch.distributions.Normal(MEAN, STD).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(found, data, rtol=0, atol=0.05)


def test_more_levels_are_more_exact():
    errors = []
    for count in (50, 100, 200):
        process = processes(count)[1]

        def model(x, t, process=process):
            a, b = scales(process, t, x)
            return MEAN + a * STD**2 / (a**2 * STD**2 + b**2) * (x - a * MEAN)

        x = MEAN + STD * torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
        exact = torch.distributions.Normal(MEAN, math.hypot(STD, 0.01 / 0.99)).log_prob(x).sum(1)
        errors.append((likelihood.log_likelihood(model, process, x, seeded()) - exact).abs().max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_a_mixture_in_one_dimension(mixture):
    """In one dimension a random sign gives the trace itself."""
    process = flow.Flow(torch.linspace(0.005, 1, 300, dtype=torch.float64), predicts="x_start")
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    found = likelihood.log_likelihood(mixture.model(process), process, x, seeded())
    spread = torch.hypot(mixture.stds, torch.tensor(0.005 / 0.995, dtype=torch.float64))
    parts = torch.distributions.Normal(mixture.means, spread).log_prob(x) + mixture.weights.log()
    torch.testing.assert_close(found, parts.logsumexp(1), rtol=0, atol=2e-3)


def test_the_estimate_is_right_on_average():
    """Of normal data whose dimensions depend on each other, where one direction is not enough."""
    process = flow.Flow(torch.linspace(0.01, 1, 60, dtype=torch.float64), predicts="x_start")
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)

    def model(x, t):
        b = t[0].double() / 1000
        gain = (1 - b) * covariance @ torch.linalg.inv((1 - b) ** 2 * covariance + b**2 * eye)
        return x @ gain.T

    x = torch.tensor([[0.3, -0.5]], dtype=torch.float64).expand(4000, 2)
    found = likelihood.log_likelihood(model, process, x, seeded())
    exact = torch.distributions.MultivariateNormal(x.new_zeros(2), covariance + (0.01 / 0.99) ** 2 * eye)
    assert found.std() > 0.1
    assert found.mean().item() == pytest.approx(exact.log_prob(x[0]).item(), abs=0.03)


def test_conditions_reach_the_model():
    seen = []

    def model(x, t, y):
        seen.append((t.tolist(), y.tolist()))
        return 0.5 * x

    process = flow.Flow(torch.tensor([0.25, 0.5, 1.0]), predicts="x_start")
    found = likelihood.log_likelihood(model, process, noise(0, 2, 3), seeded(), y=torch.tensor([4, 5]))
    assert found.shape == (2,)
    assert not found.requires_grad
    assert [times for times, _ in seen] == [[t, t] for t in (250, 500, 500, 1000)]
    assert {tuple(y) for _, y in seen} == {(4, 5)}


def test_uniform_bytes_take_eight_bits():
    x = torch.arange(256, dtype=torch.float64).repeat(100) / 127.5 - 1
    noisy = likelihood.dequantize(x, seeded())
    assert ((noisy - x).abs() <= likelihood.BIN / 2).all()
    assert noisy.histc(64, -1 - 1 / 255, 1 + 1 / 255).std() < 30  # of 400
    density = torch.full((3,), -5 * math.log(256 * likelihood.BIN))  # uniform in five dimensions
    assert likelihood.bits_per_dimension(density, 5).tolist() == pytest.approx([8] * 3)


@pytest.mark.equation(
    "11.2", of="ditbook.diffusion.likelihood.bits_per_dimension", against="bins of a normal distribution, integrated"
)
def test_noise_of_one_bin_bounds_the_bits_of_its_probability():
    x = torch.tensor([0.07, 0.1, 0.13], dtype=torch.float64)
    inside = x[:, None] + likelihood.BIN * (torch.arange(1000, dtype=torch.float64) / 1000 - 0.4995)
    for std, gap in (
        (0.005, 0.005),
        (1.0, 0.0),
    ):  # the noise costs a narrow density bits, a wide one none
        normal = torch.distributions.Normal(torch.tensor(0.1, dtype=torch.float64), std)
        exact = -(normal.cdf(x + likelihood.BIN / 2) - normal.cdf(x - likelihood.BIN / 2)).log2()
        found = likelihood.bits_per_dimension(normal.log_prob(inside).mean(1), 1)
        assert (found > exact + gap - 1e-5).all()
        assert (found < exact + 4 if gap else found < exact + 1e-5).all()
