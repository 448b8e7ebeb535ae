"""Each way of editing on a Gaussian, where the right distribution is known."""

import math
from functools import partial

import pytest
import torch

from ditbook.diffusion import editing, flow, inversion, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.linear import WienerFilter, conditional

WIDTH, CORRELATION, COUNT = 8, 0.8, 4000
POSTERIOR = partial(samplers.ddpm, variance="posterior")
HALF = torch.arange(WIDTH) < WIDTH // 2


def whole():
    return GaussianDiffusion(schedules.cosine(1000), predicts="x_start")


def chain(width=WIDTH):
    """The covariance of a stationary autoregressive sequence of order 1."""
    place = torch.arange(width, dtype=torch.float64)
    return CORRELATION ** (place[:, None] - place).abs()


def best(covariance=None, mean=0.0, process=None):
    covariance = chain() if covariance is None else covariance
    mean = torch.full((len(covariance),), mean, dtype=torch.float64)
    return WienerFilter(mean, covariance, process or whole())


def noise(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def divergence_of_completions(steps=50, **options):
    """Of sequences whose first half is 1.5: divergence of the Gaussian fitted to them from the right conditional."""
    known = torch.full((COUNT, WIDTH), 1.5, dtype=torch.float64)
    step = partial(editing.inpaint, **{"known": known, "mask": HALF, "step": POSTERIOR} | options)
    x = samplers.sample(best(), noise(COUNT, WIDTH), whole().respace(steps), step=step, generator=seeded())
    assert torch.equal(x[:, HALF], known[:, HALF])
    mean, covariance = conditional(torch.zeros(WIDTH, dtype=torch.float64), chain(), HALF, known[0, HALF])
    found, offset = torch.cov(x[:, ~HALF].T), x[:, ~HALF].mean(0) - mean
    terms = torch.linalg.solve(covariance, found).trace() + offset @ torch.linalg.solve(covariance, offset)
    return 0.5 * (terms - len(mean) + torch.logdet(covariance) - torch.logdet(found)).item()


def test_resampling_comes_near_the_conditional_and_more_steps_do_not():
    replacement, slow = (divergence_of_completions(steps, repetitions=1) for steps in (50, 200))
    some, many = (divergence_of_completions(repetitions=r, jump=5) for r in (3, 10))
    assert min(replacement, slow) > 3 * max(some, many)
    assert many < 0.09 < 0.2 < slow


@pytest.mark.equation("13.3", of="ditbook.diffusion.editing.paste", against="mean and variance of the forward process")
def test_the_known_part_has_the_noise_of_its_index():
    process, mask = whole(), torch.tensor([True, False])
    known, x = torch.full((20_000, 2), 0.7, dtype=torch.float64), torch.full((20_000, 2), -3.0, dtype=torch.float64)
    run = samplers.Run(best(), process, {}, None, seeded())
    for i in (0, 400, 900):
        pasted = editing.paste(x, i, run, known, mask)
        a, b = process.scales(i)
        assert torch.equal(pasted[:, 1], x[:, 1])
        assert pasted[:, 0].mean().item() == pytest.approx(0.7 * a, abs=0.02)
        assert pasted[:, 0].std().item() == pytest.approx(b, rel=0.02)
    assert torch.equal(editing.paste(x, -1, run, known, mask)[:, 0], known[:, 0])


@pytest.mark.equation(
    "13.4", of="ditbook.diffusion.editing.renoise", against="the forward process, one index after another"
)
def test_going_up_is_the_forward_process():
    """From any index to any other: the variance of many single steps, and that of noisy images stays right."""
    process = whole()
    run = samplers.Run(best(), process, {}, None, seeded())
    for i, k in ((-1, 5), (3, 4), (700, 900)):
        scale, variance = 1.0, 0.0
        for alpha in process.alphas[i + 1 : k + 1].tolist():
            scale, variance = scale * math.sqrt(alpha), variance * alpha + 1 - alpha
        x = editing.renoise(torch.full((40_000, 1), 2.0, dtype=torch.float64), i, k, run)
        assert x.mean().item() == pytest.approx(2 * scale, abs=0.015)
        assert x.var().item() == pytest.approx(variance, rel=0.03)


@pytest.mark.equation("13.5", of="ditbook.diffusion.editing.calls", against="counting; RePaint's 2,410")
@pytest.mark.parametrize(("steps", "jump", "repetitions"), [(12, 3, 1), (12, 3, 4), (10, 4, 2), (5, 9, 3), (9, 1, 2)])
def test_the_calls_are_counted(steps, jump, repetitions):
    count = 0

    def model(x, t):
        nonlocal count
        count += 1
        return 0 * x

    step = partial(editing.inpaint, known=torch.zeros(1, 2), mask=torch.tensor([True, False]), jump=jump,
                   repetitions=repetitions)  # fmt: skip
    samplers.sample(model, torch.zeros(1, 2), whole().respace(steps), step=step, generator=seeded())
    assert count == editing.calls(steps, jump, repetitions)
    assert editing.calls(250, 10, 10) == 2410


def test_inpainting_refuses_bad_options():
    run = samplers.Run(best(), whole(), {}, None, seeded())
    known = torch.zeros(1, WIDTH)
    for options in ({"jump": 0}, {"repetitions": 0}):
        with pytest.raises(ValueError, match="jump and repetitions must be 1 or more"):
            editing.inpaint(known, 5, run, known=known, mask=HALF, **options)
    with pytest.raises(ValueError, match="the mask must be boolean"):
        editing.inpaint(known, 5, run, known=known, mask=HALF.float())


@pytest.mark.equation(
    "13.6", of="ditbook.diffusion.editing.outpaint", against="the covariance of a long autoregressive sequence"
)
def test_windows_continue_an_autoregressive_sequence():
    """Only neighbours count there, so that a window that sees the last numbers sees enough."""
    start = torch.randn(COUNT, WIDTH, generator=seeded(2), dtype=torch.float64) @ torch.linalg.cholesky(chain()).T
    options = {"window": WIDTH, "overlap": 3, "jump": 5}
    found = {}
    for r in (1, 10):
        x = editing.outpaint(best(), start, whole().respace(40), [{}, {}], **options, repetitions=r, generator=seeded())
        assert x.shape == (COUNT, WIDTH + 2 * 5)
        assert torch.equal(x[:, :WIDTH], start)
        found[r] = torch.cov(x.T)
    torch.testing.assert_close(found[10], chain(WIDTH + 10), atol=0.15, rtol=0)
    assert (found[1] - chain(WIDTH + 10)).abs().max() > 0.3


def test_each_window_gets_its_condition_and_only_what_it_may_see():
    seen = []

    def model(x, t, y):
        seen.append((tuple(x.shape), y.tolist()))
        return torch.zeros_like(x)

    labels = [{"y": torch.tensor([k])} for k in (3, 4)]
    x = torch.ones(1, 2, 4, 9)
    out = editing.outpaint(model, x, whole().respace(2), labels, window=4, overlap=1, repetitions=1, generator=seeded())
    assert out.shape == (1, 2, 4, 15)
    assert seen == [((1, 2, 4, 4), [3])] * 2 + [((1, 2, 4, 4), [4])] * 2
    for window, overlap in ((4, 0), (4, 4), (12, 10)):
        with pytest.raises(ValueError, match=f"overlap {overlap} must be positive, below the window {window}"):
            editing.outpaint(model, x, whole(), labels, window=window, overlap=overlap, generator=seeded())


@pytest.mark.equation("13.7", of="ditbook.diffusion.editing.edit", against="a Gaussian, solved exactly")
@pytest.mark.equation("13.8", of="ditbook.diffusion.editing.edit", against="samples of a run, mean and covariance")
@pytest.mark.parametrize("sigma", [0.3, 1.0, 8.0])
def test_an_edit_of_a_gaussian(sigma):
    y, process = torch.linspace(-2, 3, WIDTH, dtype=torch.float64), whole()
    model = best(mean=0.4)
    x = editing.edit(model, y.expand(COUNT, -1), process.respace(400), sigma=sigma, generator=seeded())
    values, vectors = torch.linalg.eigh(chain())
    gain = vectors @ (values / (values + sigma**2)).sqrt().diag() @ vectors.T
    torch.testing.assert_close(x.mean(0), 0.4 + gain @ (y - 0.4), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), sigma**2 * gain @ gain.T, atol=0.08, rtol=0)


def test_an_edit_visits_the_levels_below_sigma_on_any_process():
    for process in (whole().respace(20), flow.Flow(flow.uniform_times(20), predicts="x_start")):
        seen = []

        def model(x, t, seen=seen):
            seen.append(t[0].item())
            return torch.zeros_like(x)

        editing.edit(model, torch.zeros(2, 3), process, sigma=1.0, generator=seeded())
        below = process.timesteps[process.sigmas < 1.0].flip(0)
        top = process.at_sigmas(torch.tensor([0.5, 1.0])).timesteps[-1].item()
        assert seen == pytest.approx([top, *below.tolist()], rel=1e-4)
        with pytest.raises(ValueError, match="must be above the lowest noise level"):
            editing.edit(model, torch.zeros(2, 3), process, sigma=1e-9, generator=seeded())


class LinearUpsampler:
    """The exact model of x given a small image y with noise of level `level`, where (x, y) is Gaussian."""

    def __init__(self, covariance, averaging):
        self.covariance, self.averaging = covariance, averaging

    def given(self, low, level):
        sigma = whole().sigmas[level].item()
        spread = self.averaging @ self.covariance @ self.averaging.T
        noisy = spread + sigma**2 * torch.eye(len(spread), dtype=torch.float64)
        weights = torch.linalg.solve(noisy, self.averaging @ self.covariance).T
        means = low.flatten(1) * math.sqrt(1 + sigma**2) @ weights.T
        return means, self.covariance - weights @ self.averaging @ self.covariance, weights

    def __call__(self, x, t, low, level):
        means, covariance, _ = self.given(low, int(level[0]))
        a = 1 / (1 + whole().sigmas_of(t, means) ** 2).sqrt()
        centered = WienerFilter(torch.zeros(len(covariance), dtype=torch.float64), covariance, whole())
        return (means + centered(x.flatten(1) - a * means, t)).view_as(x)


def upsampled(level, error=0.0):
    """Sequences of 4 from averages of pairs, at which a stage before made an error, and the exact model."""
    averaging = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], dtype=torch.float64)
    model = LinearUpsampler(chain(4), averaging)
    x = noise(COUNT * 4, 4) @ torch.linalg.cholesky(chain(4)).T
    low = (x @ averaging.T + error * noise(COUNT * 4, 2, seed=5)).view(-1, 1, 1, 2)

    def one_row(x, t, **condition):
        return model(x, t, **condition)

    process = whole().respace(60)
    shown = editing.augmented(low, torch.full((len(low),), level), process, seeded())
    start = noise(COUNT * 4, 1, 1, 4, seed=6)
    found = samplers.sample(one_row, start, process, low=shown, level=torch.full((len(low),), level))
    return found.flatten(1), low.flatten(1), model


@pytest.mark.equation(
    "13.10", of="ditbook.diffusion.editing.augmented", against="the exact conditional of x given a noisy average"
)
@pytest.mark.parametrize("level", [0, 300, 600])
def test_enlarged_gaussians_have_their_distribution_and_follow_the_small_image(level):
    found, low, model = upsampled(level)
    torch.testing.assert_close(torch.cov(found.T), chain(4), atol=0.06, rtol=0)
    weights = model.given(low.view(-1, 1, 1, 2), level)[2]
    across = torch.cov(torch.cat([found, low], dim=1).T)[:4, 4:]
    torch.testing.assert_close(across, weights @ torch.cov(low.T), atol=0.04, rtol=0)


@pytest.mark.equation(
    "13.11", of="ditbook.diffusion.editing.augmented", against="the variance of samples from wrong small images"
)
@pytest.mark.parametrize("level", [0, 300, 600])
def test_an_error_of_the_small_image_counts_less_with_noise(level):
    found, low, model = upsampled(level, error=0.5)
    weights = model.given(low.view(-1, 1, 1, 2), level)[2]
    excess = torch.cov(found.T) - chain(4)
    torch.testing.assert_close(excess, 0.25 * weights @ weights.T, atol=0.06, rtol=0)


def test_upsample_shows_the_model_the_noisy_small_image_and_its_level():
    seen = []

    def model(x, t, low, level):
        seen.append((tuple(x.shape), low, level.tolist()))
        return torch.full_like(x, 3.0)

    low, process = torch.zeros(2, 3, 4, 4), whole()
    found = editing.upsample(model, low, process.respace(3), size=8, level=500, generator=seeded())
    assert torch.equal(found, torch.ones(2, 3, 8, 8))  # clipped
    assert [shape for shape, *_ in seen] == [(2, 3, 8, 8)] * 3
    assert all(level == [500, 500] for *_, level in seen)
    assert torch.equal(seen[0][1], seen[2][1])
    assert seen[0][1].std().item() == pytest.approx(process.scales(500)[1], rel=0.2)


def test_inverting_and_sampling_again_edits_nothing():
    x = noise(5, WIDTH, seed=3)
    process = whole().respace(400)
    back = samplers.sample(best(), inversion.invert(best(), x, process), process)
    assert (back - x).abs().max() < 0.05
