import pytest
import torch

from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.linear import WienerFilter, conditional, fit

WIDTH = 5


def whole():
    return GaussianDiffusion(schedules.cosine(1000), predicts="x_start")


def gaussian(seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return torch.randn(WIDTH, generator=generator, dtype=torch.float64), factor @ factor.T / WIDTH


@pytest.mark.equation(
    "13.1", of="ditbook.diffusion.linear.WienerFilter", against="the conditional mean of the joint normal"
)
def test_it_is_the_conditional_mean_of_gaussian_data():
    mean, covariance = gaussian()
    process, t = whole(), torch.tensor([3, 500, 950])
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = WienerFilter(mean, covariance, process)(x, t)
    for row, i in enumerate(t.tolist()):
        a, b = process.scales(i)
        joint = a**2 * covariance + b**2 * torch.eye(WIDTH, dtype=torch.float64)
        wanted = mean + a * covariance @ torch.linalg.solve(joint, x[row] - a * mean)
        torch.testing.assert_close(found[row], wanted)


def test_no_other_linear_prediction_has_a_smaller_error():
    mean, covariance = gaussian()
    process, generator = whole(), torch.Generator().manual_seed(2)
    x = torch.distributions.MultivariateNormal(mean, covariance).sample((20_000,))
    t = torch.full((len(x),), 400)
    noisy = process.add_noise(x, t, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    ours = (WienerFilter(*fit(x), process)(noisy, t) - x).square().mean()
    design = torch.cat([noisy, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    best = (design @ torch.linalg.lstsq(design, x).solution - x).square().mean()  # the least squares of this sample
    assert best <= ours < 1.005 * best


def test_images_keep_their_shape():
    images = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    mean, covariance = fit(images)
    assert (mean.shape, covariance.shape) == ((12,), (12, 12))
    assert WienerFilter(mean, covariance, whole())(images, torch.full((7,), 5)).shape == images.shape


def test_the_samplers_draw_its_gaussian():
    mean, covariance = gaussian()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(20_000, WIDTH, generator=generator, dtype=torch.float64)
    x = samplers.sample(WienerFilter(mean, covariance, whole()), noise, whole().respace(200))
    torch.testing.assert_close(x.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), covariance, atol=0.06, rtol=0.05)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected a mean \(D,\) and a covariance \(D, D\)"):
        WienerFilter(torch.zeros(3), torch.eye(4), whole())


@pytest.mark.equation(
    "13.2",
    of="ditbook.diffusion.linear.conditional",
    against="an autoregressive sequence",
)
def test_the_conditional_of_an_autoregressive_sequence():
    place, values = torch.arange(8, dtype=torch.float64), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    covariance = 0.8 ** (place[:, None] - place).abs()
    mean, found = conditional(torch.ones(8, dtype=torch.float64), covariance, place < 3, values)
    after = torch.arange(1, 6, dtype=torch.float64)
    torch.testing.assert_close(mean, 1 + 0.8**after)
    wanted = 0.8 ** (after[:, None] - after).abs() - 0.8 ** (after[:, None] + after)
    torch.testing.assert_close(found, wanted)


def test_the_known_numbers_may_stand_anywhere():
    mean, covariance = gaussian(4)
    known = torch.tensor([False, True, False, True, False])
    found, variance = conditional(mean, covariance, known, mean[known])
    torch.testing.assert_close(found, mean[~known])
    torch.testing.assert_close(torch.linalg.inv(variance), torch.linalg.inv(covariance)[~known][:, ~known])
