import pytest
import torch

from ditbook.diffusion import schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

ALL = [schedules.linear, schedules.scaled_linear, schedules.cosine]


@pytest.mark.parametrize("schedule", ALL)
def test_float64_in_the_open_interval_and_as_long_as_asked(schedule):
    betas = schedule(1000)
    assert betas.dtype == torch.float64
    assert betas.shape == (1000,)
    assert (betas > 0).all()
    assert (betas < 1).all()
    assert (betas[1:] >= betas[:-1]).all()


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("steps", [1, 0, -3])
def test_a_schedule_needs_two_steps(schedule, steps):
    with pytest.raises(ValueError, match=rf"at least 2 steps, got {steps}"):
        schedule(steps)


def test_linear_is_linear():
    betas = schedules.linear(1000)
    assert betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02], rel=1e-12)
    steps = betas.diff()
    assert steps.tolist() == pytest.approx([(0.02 - 1e-4) / 999] * 999, rel=1e-9)


def test_scaled_linear_is_linear_in_the_root():
    betas = schedules.scaled_linear(1000)
    assert betas[[0, -1]].tolist() == pytest.approx([0.00085, 0.012], rel=1e-12)
    assert betas.sqrt().diff().tolist() == pytest.approx([(0.012**0.5 - 0.00085**0.5) / 999] * 999, rel=1e-9)


def test_cosine_has_the_alpha_bar_of_its_paper():
    betas = schedules.cosine(1000)
    alpha_bar = (1 - betas).cumprod(0)
    t = torch.arange(1, 1001, dtype=torch.float64)
    f = torch.cos((t / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2
    wanted = f / torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2, dtype=torch.float64)) ** 2
    torch.testing.assert_close(alpha_bar[:-1], wanted[:-1], rtol=1e-9, atol=0)
    assert betas[-1] == 0.999  # clamped


@pytest.mark.equation(
    "10.2", of="ditbook.diffusion.gaussian.GaussianDiffusion", against="products of 1 − β; values of DiT's schedule"
)
def test_alpha_bar_anchors():
    diffusion = GaussianDiffusion(schedules.linear(1000))
    product = 1.0
    for index, beta in enumerate(diffusion.betas.tolist()):
        product *= 1 - beta
        assert diffusion.alpha_bar[index].item() == pytest.approx(product, rel=1e-11)
    anchors = {0: 0.9999, 1: 0.99978009, 249: 0.52408537, 499: 0.078587243, 999: 4.0358298e-5}
    for t, value in anchors.items():
        assert diffusion.alpha_bar[t].item() == pytest.approx(value, rel=1e-7)
    assert diffusion.alpha_bar[999].sqrt().item() == pytest.approx(0.00635282, rel=1e-6)


def test_signal_to_noise_crosses_one_between_258_and_259():
    alpha_bar = GaussianDiffusion(schedules.linear(1000)).alpha_bar
    snr = alpha_bar / (1 - alpha_bar)
    assert snr[258].item() == pytest.approx(1.00098, abs=5e-6)
    assert snr[259].item() == pytest.approx(0.99050, abs=5e-6)


def test_250_steps_of_a_thousand():
    chosen = schedules.spaced_timesteps(1000, 250)
    assert chosen[:4] == [0, 4, 8, 12]
    assert chosen[-2:] == [995, 999]
    assert (len(set(chosen)), sum(chosen)) == (250, 124875)
    respaced = GaussianDiffusion(schedules.linear(1000)).respace(250)
    assert respaced.timesteps.tolist() == chosen
    assert respaced.betas[0].item() == pytest.approx(1e-4, rel=1e-9)
    assert respaced.betas[1].item() == pytest.approx(0.000599066, rel=1e-6)
    assert respaced.betas[-1].item() == pytest.approx(0.0775193, rel=1e-6)


def test_50_steps_of_a_thousand():
    chosen = schedules.spaced_timesteps(1000, 50)
    assert chosen[:4] == [0, 20, 41, 61]
    assert chosen[-2:] == [979, 999]
    assert len(set(chosen)) == 50


@pytest.mark.parametrize("count", [1, 0, 11])
def test_respacing_to_an_impossible_count(count):
    with pytest.raises(ValueError, match="take between 2 and 10"):
        schedules.spaced_timesteps(10, count)


@pytest.mark.parametrize("schedule", ALL)
def test_zero_terminal_snr(schedule):
    """Algorithm 1 of Lin et al. 2024: √ᾱ is moved and scaled, its first value stays, and the last is zero."""
    before = (1 - schedule(1000)).cumprod(0).sqrt()
    betas = schedules.zero_terminal_snr(schedule(1000))
    after = (1 - betas).cumprod(0).sqrt()
    assert betas[-1] == 1
    assert after[-1] == 0
    assert after[0].item() == pytest.approx(before[0].item())
    slope = (after[:-1].diff() / before[:-1].diff()).tolist()
    assert slope == pytest.approx([(before[0] / (before[0] - before[-1])).item()] * 998, rel=1e-5)
    with pytest.raises(ValueError, match="may be 1 where the network predicts x_start or v"):
        GaussianDiffusion(betas)
    process = GaussianDiffusion(betas, predicts="v")
    assert process.sigmas[-1] == torch.inf


def test_levels_of_karras():
    """The values of its table, for the 18 levels of CIFAR-10."""
    levels = schedules.karras_sigmas(18)
    assert levels.dtype == torch.float64
    assert levels.flip(0)[:4].tolist() == pytest.approx([80, 57.59, 40.79, 28.37], abs=0.005)
    assert levels[:2].tolist() == pytest.approx([0.002, 0.0075], abs=5e-5)
    even = schedules.karras_sigmas(5, 1.0, 9.0, rho=1.0)
    assert even.tolist() == pytest.approx([1, 3, 5, 7, 9])


@pytest.mark.parametrize(("count", "low", "high"), [(1, 0.1, 1.0), (5, 0.0, 1.0), (5, 2.0, 1.0)])
def test_impossible_levels(count, low, high):
    with pytest.raises(ValueError, match="at least 2 levels and 0 < low < high"):
        schedules.karras_sigmas(count, low, high)
