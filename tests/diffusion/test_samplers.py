import math
from functools import partial

import pytest
import torch

from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

MEAN, STD = 0.4, 0.5  # of data that is Gaussian, for which the best prediction is known


@pytest.fixture(scope="module")
def diffusion():
    return GaussianDiffusion(schedules.linear(1000))


def noise(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle(diffusion):
    """The best possible noise prediction for pixels drawn from N(MEAN, STD²)."""

    def model(x, t):
        alpha_bar = diffusion.alpha_bar[t].view(-1, 1, 1, 1)
        variance = alpha_bar * STD**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * MEAN) / variance

    return model


@pytest.mark.equation(
    "10.14", of="ditbook.diffusion.samplers.ddpm", against="DDPM algorithm 2 written out, same random numbers"
)
@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_ddpm_is_algorithm_2(variance):
    diffusion = GaussianDiffusion(schedules.linear(30, 0.01, 0.3))
    model, start = oracle(diffusion), noise(0, 2, 1, 3, 3)
    generator = torch.Generator().manual_seed(7)
    drawn = samplers.sample(
        model, start, diffusion, step=partial(samplers.ddpm, variance=variance), generator=generator
    )

    generator, x = torch.Generator().manual_seed(7), start
    for t in reversed(range(30)):
        beta, alpha_bar = diffusion.betas[t], diffusion.alpha_bar[t]
        x = (x - beta / (1 - alpha_bar).sqrt() * model(x, torch.full((2,), t))) / (1 - beta).sqrt()
        if t > 0:
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            posterior = beta * (1 - diffusion.alpha_bar[t - 1]) / (1 - alpha_bar)
            x = x + (beta if variance == "beta" else posterior).sqrt() * z
    torch.testing.assert_close(drawn, x, rtol=1e-9, atol=1e-9)


def test_ddpm_with_a_variance_head_uses_its_logits():
    diffusion = GaussianDiffusion(schedules.linear(30, 0.01, 0.3))
    learned = GaussianDiffusion(schedules.linear(30, 0.01, 0.3), learn_sigma=True)
    model, start = oracle(diffusion), noise(0, 2, 1, 3, 3)

    def head(logit):
        def with_head(x, t):
            return torch.cat([model(x, t), torch.full_like(x, logit)], dim=1)

        generator = torch.Generator().manual_seed(7)
        return samplers.sample(with_head, start, learned, step=samplers.ddpm, generator=generator)

    for logit, variance in ((1, "beta"), (-1, "posterior")):
        generator = torch.Generator().manual_seed(7)
        fixed = samplers.sample(
            model, start, diffusion, step=partial(samplers.ddpm, variance=variance), generator=generator
        )
        torch.testing.assert_close(head(logit), fixed)
    assert not torch.allclose(head(1), head(-1))


@pytest.mark.parametrize("step", [samplers.ddpm, samplers.ddim])
def test_the_best_prediction_draws_the_data(diffusion, step):
    respaced = diffusion.respace(50)
    start, generator = noise(0, 100, 1, 12, 12), torch.Generator().manual_seed(1)
    drawn = samplers.sample(oracle(diffusion), start, respaced, step=step, generator=generator)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std().item() == pytest.approx(STD, abs=0.04)  # 50 steps of ddim are a little narrow


def test_ddim_without_noise_is_a_function_of_its_start(diffusion):
    respaced, start = diffusion.respace(20), noise(0, 2, 1, 3, 3)
    first, second = (
        samplers.sample(oracle(diffusion), start, respaced, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    )
    assert torch.equal(first, second)


def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(diffusion):
    respaced, start = diffusion.respace(20), noise(0, 2, 1, 3, 3)
    implicit, ancestral = (
        samplers.sample(oracle(diffusion), start, respaced, step=step, generator=torch.Generator().manual_seed(1))
        for step in (partial(samplers.ddim, eta=1.0), partial(samplers.ddpm, variance="posterior"))
    )
    torch.testing.assert_close(implicit, ancestral, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("step", [samplers.ddpm, samplers.ddim])
@pytest.mark.parametrize("parameterization", ["x_start", "v"])
def test_the_same_knowledge_in_other_words_draws_the_same(diffusion, step, parameterization):
    respaced, start, model = diffusion.respace(20), noise(0, 2, 1, 3, 3), oracle(diffusion)

    def other(x, t):
        return getattr(diffusion.convert(model(x, t), x, t, "eps"), parameterization)

    process = GaussianDiffusion(schedules.linear(1000), predicts=parameterization).respace(20)
    drawn = samplers.sample(other, start, process, step=step, generator=torch.Generator().manual_seed(1))
    wanted = samplers.sample(model, start, respaced, step=step, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("step", [samplers.ddpm, samplers.ddim])
def test_clipping_bounds_every_predicted_image(diffusion, step):
    def wild(x, t):
        return -3 * x

    start, options = noise(0, 2, 1, 3, 3), {"step": step, "clip": 1.0}
    frames = list(
        samplers.progressive(wild, start, diffusion.respace(10), generator=torch.Generator().manual_seed(1), **options)
    )
    assert [frame.i for frame in frames] == list(range(9, -1, -1))
    assert all(frame.prediction.x_start.abs().max() <= 1 for frame in frames)
    assert frames[-1].x.abs().max() <= 1 + 1e-9
    last = samplers.sample(wild, start, diffusion.respace(10), generator=torch.Generator().manual_seed(1), **options)
    assert torch.equal(last, frames[-1].x)


@pytest.mark.parametrize("step", [samplers.ddpm, samplers.ddim])
def test_the_model_gets_training_timesteps_and_its_condition(diffusion, step):
    asked = []

    def model(x, t, y):
        asked.append((t.tolist(), y.tolist()))
        return torch.zeros_like(x)

    generator = torch.Generator().manual_seed(1)
    start, y = noise(0, 2, 1, 2, 2), torch.tensor([4, 5])
    samplers.sample(model, start, diffusion.respace(3), step=step, generator=generator, y=y)
    assert asked == [([t, t], [4, 5]) for t in (999, 500, 0)]


def test_noise_without_a_generator_and_an_unknown_variance(diffusion):
    for step, message in (
        (samplers.ddpm, "pass generator"),
        (partial(samplers.ddim, eta=0.5), "pass generator"),
        (partial(samplers.ddpm, variance="large"), "take 'beta', 'posterior', or 'learned'"),
        (partial(samplers.ddpm, variance="learned"), "take 'beta', 'posterior', or 'learned'"),
    ):
        with pytest.raises(ValueError, match=message):
            samplers.sample(oracle(diffusion), noise(0, 1, 1, 2, 2), diffusion.respace(3), step=step)


def log_snr(diffusion, i):
    """Half the logarithm of the signal-to-noise ratio at index i; at −1, the clean image, a large number."""
    a = diffusion.alpha_bar[i].item() if i >= 0 else 1 - 1e-12
    return 0.5 * (math.log(a) - math.log(1 - a))


def dpm_solver_2m(x, i, run):
    """DPM-Solver++ of second order (Lu et al. 2022, algorithm 2), as a reader would write it."""
    found = run.denoise(x, i).x_start
    here, there = log_snr(run.diffusion, i), log_snr(run.diffusion, i - 1)
    sigma_ratio = ((1 - run.diffusion.alpha_bar_prev[i]) / (1 - run.diffusion.alpha_bar[i])).sqrt().item()
    if len(run.history) > 1 and i > 0:
        before = log_snr(run.diffusion, i + 1)
        r = (here - before) / (there - here)
        found = (1 + 1 / (2 * r)) * found - 1 / (2 * r) * run.history[-2].x_start
    return sigma_ratio * x - run.diffusion.alpha_bar_prev[i].sqrt().item() * math.expm1(here - there) * found


def heun(x, i, run):
    """Second order: the implicit step with the mean of the noise predicted at both of its ends."""
    a, b = run.diffusion.alpha_bar[i].item(), run.diffusion.alpha_bar_prev[i].item()
    slope = (1 / b - 1) ** 0.5 - (1 / a - 1) ** 0.5  # of x/√ᾱ over √(1/ᾱ − 1), whose derivative is ε
    first = run.denoise(x, i).eps
    x_next = b**0.5 * (x / a**0.5 + slope * first)
    if i == 0:
        return x_next
    return b**0.5 * (x / a**0.5 + slope * (first + run.denoise(x_next, i - 1).eps) / 2)


def inpainting(step, known, mask):
    """Wrap a step: before it, what is known replaces the image where the mask is true."""

    def project(x, i, run):
        noisy = run.diffusion.add_noise(known, run.timesteps(x, i), run.noise(x))
        return step(torch.where(mask, noisy, x), i, run)

    return project


def exact_end(diffusion, x):
    """Where the deterministic flow takes noise `x` of the last index, for data N(MEAN, STD²)."""
    a = diffusion.alpha_bar[-1]
    return MEAN + STD * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a).sqrt()


def test_the_loop_carries_multistep_and_two_stage_methods(diffusion):
    start, process = noise(0, 2, 1, 4, 4), diffusion.respace(200)
    wanted = exact_end(diffusion, start)
    error = {
        step.__name__: (samplers.sample(oracle(diffusion), start, process, step=step) - wanted).abs().max().item()
        for step in (samplers.ddim, heun, dpm_solver_2m)
    }
    assert error["ddim"] < 0.02
    assert error["dpm_solver_2m"] < error["ddim"] / 4
    assert error["heun"] < error["ddim"] / 500


def test_a_step_may_wrap_another(diffusion):
    known, mask = noise(1, 1, 1, 4, 4).expand(3, -1, -1, -1), torch.arange(4) < 2
    step = inpainting(samplers.ddpm, known, mask)
    x = samplers.sample(
        oracle(diffusion), noise(0, 3, 1, 4, 4), diffusion, step=step, generator=torch.Generator().manual_seed(2)
    )
    assert (x - known)[..., :2].abs().max() < 0.1  # up to the noise of the first index
    assert (x - known)[..., 2:].abs().mean() > 0.3


@pytest.mark.equation("12.4", of="ditbook.diffusion.samplers.ddim", against="DDIM equation 12, and Euler in x/a over σ")
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_without_noise_the_prediction_of_the_noise_is_held(predicts):
    process = GaussianDiffusion(schedules.linear(1000), predicts=predicts).respace(9)

    def model(x, t):
        return torch.tanh(x) + 0.001 * t[0]

    x = noise(0, 2, 1, 3, 3)
    for frame in samplers.progressive(model, x, process):
        index = torch.full((2,), frame.i)
        eps = process.predict(model(x, process.training_timesteps(index)), x, index).eps
        now, after = process.alpha_bar[frame.i], process.alpha_bar_prev[frame.i]
        printed = after.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - after).sqrt() * eps
        sigma, lower = (1 / now - 1).sqrt(), (1 / after - 1).sqrt()
        torch.testing.assert_close(frame.x, printed)
        torch.testing.assert_close(frame.x / after.sqrt(), x / now.sqrt() + (lower - sigma) * eps)
        x = frame.x


@pytest.mark.equation(
    "12.3", of="ditbook.diffusion.samplers.ddim", against="drift and variance of the equation, over a short step"
)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_a_short_step_is_one_of_the_stochastic_equation(eta, diffusion):
    """From σ = 2 by 1/1,000: mean and deviation of many steps from one point, in x/a."""
    process = diffusion.at_sigmas(torch.tensor([1.999, 2.0], dtype=torch.float64))
    (a, _), (a_next, _) = process.scales(1), process.scales(0)
    x = torch.full((400_000, 1), 0.7 * a, dtype=torch.float64)
    run = samplers.Run(lambda x, t: torch.full_like(x, 0.9), process, {}, None, torch.Generator().manual_seed(0))
    moved = samplers.ddim(x, 1, run, eta=eta) / a_next - 0.7
    deviation = eta * math.sqrt(2 * 2.0 * 0.001)
    assert moved.std().item() == pytest.approx(deviation, rel=0.01)
    drift = (1 + eta**2) * 0.9 * -0.001
    assert moved.mean().item() == pytest.approx(drift, abs=4 * deviation / math.sqrt(400_000) + 1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_amount_of_noise_keeps_the_densities(eta, mixture, predicts_start):
    """At three noise levels the fraction of samples below a point is that of the mixture, whatever the noise."""
    process = predicts_start.at_sigmas(schedules.karras_sigmas(200, 0.02, 100.0))
    step = partial(samplers.ddim, eta=eta)
    generator = torch.Generator().manual_seed(1)
    frames = samplers.progressive(
        mixture.model(predicts_start), noise(0, 10_000, 1), process, step=step, generator=generator
    )
    images = {frame.i - 1: frame.x for frame in frames}
    for i in (120, 60, 20):
        a, b = process.scales(i)
        width = ((a * mixture.stds) ** 2 + b**2).sqrt()
        for point in (-1.0, 0.0, 0.7):
            wanted = (mixture.weights * torch.special.ndtr((point - a * mixture.means) / width)).sum().item()
            assert (images[i] < point).double().mean().item() == pytest.approx(wanted, abs=0.02)
