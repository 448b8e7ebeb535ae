import pytest
import torch

from ditbook.diffusion import schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

INDICES = [0, 1, 2, 249, 499, 999]


@pytest.fixture(scope="module")
def diffusion():
    return GaussianDiffusion(schedules.linear(1000))


def images(seed, batch=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, 4, 4, generator=generator, dtype=torch.float64)


def coefficients(diffusion, t):
    """What `add_noise` multiplies the image and the noise by, read off its outputs."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    index = torch.tensor([t])
    return diffusion.add_noise(one, index, zero).item(), diffusion.add_noise(zero, index, one).item()


@pytest.mark.equation(
    "10.1",
    of="ditbook.diffusion.gaussian.GaussianDiffusion.add_noise",
    against="mean and variance of 1,000 chained single steps",
)
@pytest.mark.equation(
    "10.3",
    of="ditbook.diffusion.gaussian.GaussianDiffusion.add_noise",
    against="mean and variance of 1,000 chained single steps",
)
def test_closed_form_has_the_moments_of_the_chain(diffusion):
    mean, variance = 1.0, 0.0  # of x_t given x_0 = 1
    for t, beta in enumerate(diffusion.betas.tolist()):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        signal, noise = coefficients(diffusion, t)
        assert signal == pytest.approx(mean, rel=1e-10)
        assert noise**2 == pytest.approx(variance, rel=1e-10)


def test_drawn_chain_has_the_spread_of_the_closed_form():
    diffusion = GaussianDiffusion(torch.tensor([0.1, 0.3, 0.2, 0.4]))
    generator = torch.Generator().manual_seed(0)
    x = torch.full((200_000,), 2.0)
    for beta in diffusion.betas.tolist():
        x = (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=generator)
    signal, noise = coefficients(diffusion, 3)
    assert x.mean().item() == pytest.approx(2 * signal, abs=0.01)
    assert x.std().item() == pytest.approx(noise, abs=0.01)


@pytest.mark.equation(
    "10.4", of="ditbook.diffusion.gaussian.GaussianDiffusion.add_noise", against="closed form, DDPM equation 4"
)
def test_add_noise_is_the_closed_form_of_each_sample(diffusion):
    x, eps, t = images(0), images(1), torch.tensor(INDICES)
    noisy = diffusion.add_noise(x, t, eps)
    for i, index in enumerate(INDICES):
        alpha_bar = torch.prod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[: index + 1])
        torch.testing.assert_close(noisy[i], alpha_bar.sqrt() * x[i] + (1 - alpha_bar).sqrt() * eps[i])


def bayes(diffusion, x_start, x_t, t):
    """Mean and variance of q(x_t | x) q(x | x_0), normalised over a fine grid of x = x_{t-1}."""
    beta, before = diffusion.betas[t], diffusion.alpha_bar[t - 1]
    centre, spread = before.sqrt() * x_start, (1 - before).sqrt()
    grid = torch.linspace(-12, 12, 400_001, dtype=torch.float64) * spread + centre
    log = -((x_t - (1 - beta).sqrt() * grid) ** 2) / (2 * beta) - (grid - centre) ** 2 / (2 * spread**2)
    weight = (log - log.max()).exp()
    weight = weight / weight.sum()
    mean = (weight * grid).sum()
    return mean, (weight * (grid - mean) ** 2).sum()


@pytest.mark.equation(
    "10.6", of="ditbook.diffusion.gaussian.GaussianDiffusion.posterior", against="Bayes' rule on a grid of numbers"
)
@pytest.mark.equation(
    "10.7", of="ditbook.diffusion.gaussian.GaussianDiffusion.posterior", against="Bayes' rule on a grid of numbers"
)
@pytest.mark.parametrize("t", [1, 2, 50, 499, 999])
def test_posterior_is_bayes_rule(diffusion, t):
    x_start = 0.7
    x_t = 0.7 * diffusion.alpha_bar[t].sqrt().item() - 1.3 * (1 - diffusion.alpha_bar[t]).sqrt().item()
    as_image = torch.full((1, 1, 1, 1), x_start, dtype=torch.float64)
    mean, log_variance = diffusion.posterior(as_image, torch.full_like(as_image, x_t), torch.tensor([t]))
    wanted_mean, wanted_variance = bayes(diffusion, x_start, x_t, t)
    assert mean.item() == pytest.approx(wanted_mean.item(), abs=1e-8)
    assert log_variance.exp().item() == pytest.approx(wanted_variance.item(), rel=1e-6)


@pytest.mark.equation(
    "11.7", of="ditbook.diffusion.gaussian.GaussianDiffusion.posterior", against="densities of torch.distributions"
)
def test_a_forward_step_turned_around(diffusion):
    generator = torch.Generator().manual_seed(0)
    x_0, before, x_t = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    for i in (1, 20, 500, 999):
        mean, log_variance = diffusion.posterior(x_0, x_t, torch.full((50,), i))
        kept, kept_before, beta = diffusion.alpha_bar[i], diffusion.alpha_bar[i - 1], diffusion.betas[i]

        def normal(mean, variance):
            return torch.distributions.Normal(mean, torch.as_tensor(variance).sqrt())

        backwards = normal(mean, log_variance.exp()).log_prob(before)
        fraction = normal(kept.sqrt() * x_0, 1 - kept).log_prob(x_t)
        fraction = fraction - normal(kept_before.sqrt() * x_0, 1 - kept_before).log_prob(before)
        wanted = normal((1 - beta).sqrt() * before, beta).log_prob(x_t)
        torch.testing.assert_close(backwards + fraction, wanted, rtol=1e-9, atol=1e-6)


@pytest.mark.equation(
    "11.16", of="ditbook.diffusion.gaussian.GaussianDiffusion.convert", against="posterior mean of a mixture; autograd"
)
def test_the_score_denoises(diffusion, mixture):
    """The noise that follows from the slope of the log density gives the mean of x₀."""
    x = torch.linspace(-3, 3, 41, dtype=torch.float64).requires_grad_()
    for i in (0, 100, 400, 999):
        a, b = diffusion.sqrt_alpha_bar[i], diffusion.sqrt_one_minus_alpha_bar[i]
        (score,) = torch.autograd.grad(mixture.logits(x, a, b).logsumexp(-1).sum(), x)
        found = diffusion.convert(-b * score, x.detach(), torch.full((41,), i), "eps").x_start
        tweedie = (x.detach() + b**2 * score) / a
        torch.testing.assert_close(found, tweedie)
        torch.testing.assert_close(found, mixture.x_start(x.detach(), a, b), rtol=1e-6, atol=1e-6)


def test_posterior_anchors(diffusion):
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    first = torch.tensor([1])
    assert diffusion.posterior(one, zero, first)[0].item() == pytest.approx(0.5452915, abs=1e-7)
    assert diffusion.posterior(zero, one, first)[0].item() == pytest.approx(0.4547085, abs=1e-7)
    assert diffusion.posterior(zero, one, first)[1].exp().item() == pytest.approx(5.4531877e-5, rel=1e-7)
    assert diffusion.posterior(zero, one, torch.tensor([999]))[1].exp().item() == pytest.approx(0.019999984, rel=1e-7)


def test_the_last_step_is_certain_and_its_log_variance_borrowed(diffusion):
    x_start, x_t = images(0, 1), images(1, 1)
    mean, log_variance = diffusion.posterior(x_start, x_t, torch.tensor([0]))
    torch.testing.assert_close(mean, x_start)
    assert diffusion.posterior_variance[0] == 0
    assert log_variance.item() == diffusion.posterior_log_variance[0] == diffusion.posterior_log_variance[1]
    torch.testing.assert_close(diffusion.posterior_log_variance[1:].exp(), diffusion.posterior_variance[1:])


@pytest.mark.equation(
    "10.10", of="ditbook.diffusion.gaussian.GaussianDiffusion.convert", against="the image that noise was added to"
)
@pytest.mark.equation(
    "10.13", of="ditbook.diffusion.gaussian.GaussianDiffusion.targets", against="v written out from image and noise"
)
@pytest.mark.parametrize("parameterization", ["eps", "x_start", "v"])
def test_every_parameterization_gives_all_three_back(diffusion, parameterization):
    x_start, eps, t = images(0), images(1), torch.tensor(INDICES)
    alpha_bar = diffusion.alpha_bar[t].view(-1, 1, 1, 1)
    truth = {"x_start": x_start, "eps": eps, "v": alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_start}
    x_t = diffusion.add_noise(x_start, t, eps)
    prediction = diffusion.convert(truth[parameterization], x_t, t, parameterization)
    for name, wanted in truth.items():
        torch.testing.assert_close(getattr(prediction, name), wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(getattr(diffusion.targets(x_start, eps, t), name), wanted)


@pytest.mark.equation(
    "16.11", of="ditbook.diffusion.gaussian.GaussianDiffusion.predict", against="variances of the forward process"
)
def test_logits_reach_from_the_posterior_variance_to_beta():
    diffusion = GaussianDiffusion(schedules.linear(1000), learn_sigma=True)
    x, t = images(0, 3), torch.tensor([1, 500, 999])
    for logit, wanted in ((-1, diffusion.posterior_variance[t]), (1, diffusion.betas[t])):
        prediction = diffusion.predict(torch.cat([x, torch.full_like(x, logit)], dim=1), x, t)
        assert torch.equal(prediction.eps, x)
        torch.testing.assert_close(prediction.log_variance.exp(), wanted.view(-1, 1, 1, 1).expand_as(x))
    middle = diffusion.predict(torch.cat([x, torch.zeros_like(x)], dim=1), x, t).log_variance
    geometric = (diffusion.posterior_variance[t] * diffusion.betas[t]).sqrt()
    torch.testing.assert_close(middle.exp(), geometric.view(-1, 1, 1, 1).expand_as(x))


@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_the_process_says_what_an_output_means(predicts):
    plain = GaussianDiffusion(schedules.linear(1000), predicts=predicts)
    head = GaussianDiffusion(schedules.linear(1000), predicts=predicts, learn_sigma=True)
    x, output, t = images(0, 3), images(1, 3), torch.tensor([1, 500, 999])
    wanted = plain.convert(output, x, t, predicts)
    for found in (plain.predict(output, x, t), head.predict(torch.cat([output, output], dim=1), x, t)):
        assert all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("x_start", "eps", "v"))
    for respaced in (head.respace(10), head.subsequence([3, 5])):
        assert (respaced.predicts, respaced.learn_sigma) == (predicts, True)


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_an_output_with_other_channels(learn_sigma):
    diffusion = GaussianDiffusion(schedules.linear(1000), learn_sigma=learn_sigma)
    x, t = images(0, 3), torch.tensor([1, 500, 999])
    for channels in {1, 2, 3, 4} - {4 if learn_sigma else 2}:
        output = x[:, :1].expand(-1, channels, -1, -1)
        with pytest.raises(ValueError, match=rf"shape \(3, {channels}, 4, 4\) .*learn_sigma={learn_sigma} expects"):
            diffusion.predict(output, x, t)


@pytest.mark.equation(
    "10.11",
    of="ditbook.diffusion.gaussian.GaussianDiffusion.posterior",
    against="the posterior mean in terms of the noise, DDPM equation 11",
)
def test_posterior_mean_in_terms_of_the_noise(diffusion):
    x_t, eps, t = images(0), images(1), torch.tensor(INDICES)
    mean, _ = diffusion.posterior(diffusion.convert(eps, x_t, t, "eps").x_start, x_t, t)
    beta, alpha_bar = diffusion.betas[t].view(-1, 1, 1, 1), diffusion.alpha_bar[t].view(-1, 1, 1, 1)
    wanted = (x_t - beta / (1 - alpha_bar).sqrt() * eps) / (1 - beta).sqrt()
    torch.testing.assert_close(mean, wanted, rtol=1e-9, atol=1e-9)


def test_results_have_the_type_of_the_image(diffusion):
    x = images(0).float()
    assert diffusion.add_noise(x, torch.tensor(INDICES), x).dtype == torch.float32
    assert diffusion.posterior(x, x, torch.tensor(INDICES))[0].dtype == torch.float32


def test_respacing_keeps_alpha_bar_and_the_training_timesteps(diffusion):
    respaced = diffusion.respace(10)
    assert respaced.num_steps == 10
    torch.testing.assert_close(respaced.alpha_bar, diffusion.alpha_bar[respaced.timesteps])
    assert respaced.training_timesteps(torch.tensor([0, 9])).tolist() == [0, 999]
    twice = respaced.subsequence([0, 5, 9])
    assert twice.timesteps.tolist() == respaced.timesteps[[0, 5, 9]].tolist()
    torch.testing.assert_close(twice.alpha_bar, diffusion.alpha_bar[twice.timesteps])


@pytest.mark.parametrize("index", [-1, 1000])
def test_timestep_out_of_range(diffusion, index):
    x, t = images(0, 2), torch.tensor([3, index])
    message = rf"timestep out of range: \[3, {index}\] must lie in 0 to 999"
    with pytest.raises(ValueError, match=message):
        diffusion.add_noise(x, t, x)
    with pytest.raises(ValueError, match=message):
        diffusion.posterior(x, x, t)
    with pytest.raises(ValueError, match=message):
        diffusion.convert(x, x, t, "eps")


@pytest.mark.parametrize("t", [torch.tensor(3), torch.tensor([3]), torch.tensor([[3], [4]]), torch.tensor([3, 4, 5])])
def test_timesteps_are_never_broadcast(diffusion, t):
    x = images(0, 2)
    with pytest.raises(ValueError, match=r"timesteps of shape .* for 2 samples; expected \(2,\)"):
        diffusion.add_noise(x, t, x)


def test_tables_are_cast_before_they_are_moved(diffusion):
    x = torch.zeros(2, 3, dtype=torch.bfloat16, device="meta")
    found = diffusion.coefficient("sqrt_alpha_bar", torch.zeros(2, dtype=torch.int64, device="meta"), x)
    assert (found.shape, found.dtype, found.device) == ((2, 1), x.dtype, x.device)


@pytest.mark.parametrize("betas", [torch.tensor([0.1]), torch.ones(2, 2) / 2, torch.tensor([])])
def test_too_few_steps(betas):
    with pytest.raises(ValueError, match="at least 2 variances"):
        GaussianDiffusion(betas)


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.1, 1.0], [-0.1, 0.2], [0.1, float("nan")]])
def test_beta_outside_the_open_interval(betas):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        GaussianDiffusion(torch.tensor(betas))


def test_unknown_parameterization_and_other_shape(diffusion):
    x, t = images(0), torch.tensor(INDICES)
    with pytest.raises(ValueError, match="take 'eps', 'x_start' or 'v'"):
        diffusion.convert(x, x, t, "score")
    with pytest.raises(ValueError, match="take 'eps', 'x_start' or 'v'"):
        GaussianDiffusion(schedules.linear(10), predicts="score")
    with pytest.raises(ValueError, match=r"\(6, 1, 4, 4\) and noisy image \(6, 2, 4, 4\) differ"):
        diffusion.convert(x[:, :1], x, t, "eps")


@pytest.mark.equation(
    "12.1", of="ditbook.diffusion.gaussian.GaussianDiffusion", against="a noisy image divided by its weight of x₀"
)
def test_divided_by_the_weight_of_the_image_only_sigma_is_left():
    diffusion = GaussianDiffusion(schedules.cosine(1000))
    x, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0, 100, 500, 900, 998])
    divided = diffusion.add_noise(x, t, eps) / diffusion.coefficient("sqrt_alpha_bar", t, x)
    torch.testing.assert_close(divided, x + diffusion.sigmas[t][:, None] * eps)
    torch.testing.assert_close(diffusion.sigmas, (1 / diffusion.alpha_bar - 1).sqrt())
