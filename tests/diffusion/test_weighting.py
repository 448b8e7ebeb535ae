import math
from functools import partial

import pytest
import torch

from ditbook.diffusion import losses, schedules, weighting
from ditbook.diffusion.gaussian import GaussianDiffusion

CLOSED_FORMS = {  # weight of the squared error of x₀
    "eps": (weighting.uniform_eps, lambda snr: snr),
    "x_start": (weighting.uniform_x_start, lambda snr: 1.0),
    "v": (weighting.uniform_v, lambda snr: 1 + snr),
    "min-snr": (weighting.min_snr, lambda snr: min(snr, 5.0)),
    "min-snr 1": (partial(weighting.min_snr, gamma=1.0), lambda snr: min(snr, 1.0)),
    "p2": (weighting.p2, lambda snr: snr / (1 + snr)),
    "p2 half": (partial(weighting.p2, gamma=0.5, k=2.0), lambda snr: snr / (2 + snr) ** 0.5),
}
PREDICTS = ["eps", "x_start", "v"]


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch():
    return normal(0, 6, 1, 3, 3), normal(1, 6, 1, 3, 3), torch.tensor([0, 50, 258, 259, 700, 999])


def model(x, t):
    return 0.3 * x


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_weighted_loss_is_the_closed_form_in_the_error_of_the_image(name, predicts):
    function, closed = CLOSED_FORMS[name]
    diffusion = GaussianDiffusion(schedules.linear(1000), predicts=predicts)
    x, eps, t = batch()
    found = losses.simple_loss(model, diffusion, x, t, eps, weighting=function, reduction="none")
    x_t = diffusion.add_noise(x, t, eps)
    error = (diffusion.convert(0.3 * x_t, x_t, t, predicts).x_start - x).square().mean((1, 2, 3))
    snr = [(ᾱ / (1 - ᾱ)) for ᾱ in diffusion.alpha_bar[t].tolist()]
    wanted = torch.tensor([closed(ratio) for ratio in snr], dtype=torch.float64) * error
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("predicts", PREDICTS)
def test_the_simple_loss_is_the_uniform_weight_of_what_is_predicted(predicts):
    diffusion = GaussianDiffusion(schedules.linear(1000), predicts=predicts)
    x, eps, t = batch()
    plain, weighted = (
        losses.simple_loss(model, diffusion, x, t, eps, weighting=chosen)
        for chosen in (None, CLOSED_FORMS[predicts][0])
    )
    torch.testing.assert_close(weighted, plain)
    weights = weighting.of_timesteps(CLOSED_FORMS[predicts][0], diffusion)
    torch.testing.assert_close(weights, torch.ones(1000, dtype=torch.float64))


@pytest.mark.parametrize(
    ("predicts", "closed"),
    [
        ("eps", lambda snr: min(snr, 5) / snr),
        ("x_start", lambda snr: min(snr, 5)),
        ("v", lambda snr: min(snr, 5) / (snr + 1)),
    ],
)
def test_min_snr_in_terms_of_each_prediction(predicts, closed):
    """As Hang et al. 2023 and its followers print it for ε, x₀ and v."""
    snr = torch.tensor([0.01, 1.0, 4.9, 5.1, 100.0], dtype=torch.float64)
    found = weighting.of_error(weighting.min_snr, snr, predicts)
    assert found.tolist() == pytest.approx([closed(ratio) for ratio in snr.tolist()])


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_zero_signal_gives_finite_weights(name):
    for predicts in PREDICTS:
        weight = weighting.of_error(CLOSED_FORMS[name][0], torch.tensor([0.0, 1.0]), predicts)
        assert weight.isfinite().all()
    with pytest.raises(ValueError, match="take 'eps', 'x_start' or 'v'"):
        weighting.of_error(CLOSED_FORMS[name][0], torch.tensor([1.0]), "score")


@pytest.mark.equation("11.10", of="ditbook.diffusion.weighting.of_bound", against="divergences of the posteriors")
@pytest.mark.equation("11.11", of="ditbook.diffusion.weighting.of_bound", against="divergences of the posteriors")
def test_the_weight_of_the_bound():
    """Against the terms of the bound with the posterior variance, whose KL divergence is a weighted squared error."""
    from ditbook.diffusion import bound

    diffusion = GaussianDiffusion(schedules.cosine(100), predicts="x_start")
    x, eps = normal(0, 99, 1, 3, 3), normal(1, 99, 1, 3, 3)
    t = torch.arange(1, 100)
    x_t = diffusion.add_noise(x, t, eps)
    guess = 0.3 * x_t
    log_var = diffusion.coefficient("posterior_log_variance", t, x_t).expand_as(x_t)
    bits = bound.bound_terms(diffusion, guess, log_var, x, x_t, t)
    wanted = weighting.of_bound(diffusion)[t] * (guess - x).square().mean((1, 2, 3))
    torch.testing.assert_close(bits * torch.tensor(2.0, dtype=torch.float64).log(), wanted, rtol=1e-6, atol=1e-10)
    noise_error = (diffusion.convert(guess, x_t, t, "x_start").eps - eps).square().mean((1, 2, 3))
    snr = diffusion.sigmas**-2
    torch.testing.assert_close((snr[t - 1] / snr[t] - 1) / 2 * noise_error, wanted, rtol=1e-6, atol=1e-10)
    assert weighting.of_bound(diffusion)[0] == torch.inf


def test_a_process_between_the_same_ends_has_the_same_weight_in_total():
    """The weights of the bound sum up to half the difference of the ratios at the ends, whatever lies between."""
    for count in (10, 500):
        process = GaussianDiffusion(schedules.linear(1000)).respace(count)
        snr = process.alpha_bar / (1 - process.alpha_bar)
        total = weighting.of_bound(process)[1:].sum()
        torch.testing.assert_close(total, (snr[0] - snr[-1]) / 2)


@pytest.mark.equation("11.12", of="ditbook.diffusion.weighting.of_bound", against="the integral for normal data")
@pytest.mark.parametrize("schedule", [schedules.linear, schedules.cosine])
def test_many_terms_of_the_bound_are_an_integral_between_the_ends(schedule):
    """For normal data of variance V the best error is V / (1 + V SNR), and its integral is known."""
    process, variance = GaussianDiffusion(schedule(1000)), 0.6
    low, high = (process.sigmas[i].item() for i in (0, -1))
    errors = []
    for count in (100, 1000, 10_000):
        places = torch.linspace(0, 999, count, dtype=torch.float64)
        spaced = process.at_sigmas(process.sigmas_of(places, places))
        snr = spaced.sigmas**-2
        total = (weighting.of_bound(spaced) * variance / (1 + variance * snr))[1:].sum().item()
        errors.append(total / (0.5 * math.log((1 + variance / low**2) / (1 + variance / high**2))) - 1)
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.02


@pytest.mark.equation(
    "11.13", of="ditbook.diffusion.schedules.cosine", against="closed form, Kingma & Gao 2023, table 1"
)
def test_even_steps_of_the_cosine_schedule_have_a_hyperbolic_density():
    ratio = GaussianDiffusion(schedules.cosine(1000)).sigmas.log() * -2  # λ
    middle = (ratio[1:] + ratio[:-1]) / 2
    found = 1 / (1000 * (ratio[:-1] - ratio[1:]))
    inside = middle.abs() < 5
    closed = 1 / (2 * math.pi * torch.cosh(middle / 2))
    torch.testing.assert_close(found[inside], closed[inside], rtol=0.03, atol=0)


def test_training_takes_a_weighting():
    diffusion = GaussianDiffusion(schedules.linear(1000), learn_sigma=True)
    x = normal(0, 8, 1, 2, 2)

    def with_head(x, t):
        return torch.cat([0.3 * x, torch.zeros_like(x)], dim=1)

    def seeded():
        return torch.Generator().manual_seed(1)

    found = losses.denoising_loss(with_head, diffusion, x, seeded(), weighting=weighting.min_snr)
    generator = seeded()
    t, eps = torch.randint(1000, (8,), generator=generator), torch.randn(x.shape, generator=generator, dtype=x.dtype)
    wanted = losses.hybrid_loss(with_head, diffusion, x, t, eps, weighting=weighting.min_snr)
    assert torch.equal(found, wanted)
    assert found != losses.hybrid_loss(with_head, diffusion, x, t, eps)
