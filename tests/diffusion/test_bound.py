import math

import numpy as np
import pytest
import torch

from ditbook.diffusion import bound, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion


@pytest.fixture(scope="module")
def diffusion():
    return GaussianDiffusion(schedules.linear(1000), learn_sigma=True)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def silent(x, t):
    """A model at step 0 of training: every output zero."""
    return x.new_zeros(len(x), 2 * x.shape[1], *x.shape[2:])


@pytest.mark.equation("10.9", of="ditbook.diffusion.bound.gaussian_kl", against="squared distance over 2σ²; torch")
def test_kl_of_gaussians():
    mean_1, mean_2, log_1, log_2 = (normal(seed, 7) for seed in range(4))
    equal = bound.gaussian_kl(mean_1, log_1, mean_2, log_1)
    torch.testing.assert_close(equal, (mean_1 - mean_2) ** 2 / (2 * log_1.exp()))
    first = torch.distributions.Normal(mean_1, (log_1 / 2).exp())
    second = torch.distributions.Normal(mean_2, (log_2 / 2).exp())
    wanted = torch.distributions.kl_divergence(first, second)
    torch.testing.assert_close(bound.gaussian_kl(mean_1, log_1, mean_2, log_2), wanted)


@pytest.mark.parametrize(("mean", "log_var"), [(0.1, -3.0), (-0.9, -9.0), (0.0, 1.0)])
def test_likelihoods_of_all_pixel_values_sum_to_one(mean, log_var):
    pixels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    nll = bound.discretized_nll(pixels, torch.full_like(pixels, mean), torch.full_like(pixels, log_var))
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("t", "bits"), [(0, 1.988), (1, 0.63271), (10, 0.10778), (100, 0.014582), (999, 0.014722)])
def test_bound_at_step_0_of_training(diffusion, t, bits):
    x, eps = normal(0, 400, 4, 16, 16), normal(1, 400, 4, 16, 16)
    index = torch.full((400,), t)
    x_t = diffusion.add_noise(x, index, eps)
    found = diffusion.predict(silent(x_t, index), x_t, index)
    terms = bound.bound_terms(diffusion, found.x_start, found.log_variance, x, x_t, index)
    assert terms.shape == (400,)
    assert terms.mean().item() == pytest.approx(bits, rel=0.01)


def test_a_perfect_head_leaves_the_bound_at_zero(diffusion):
    x, eps, t = normal(0, 4, 1, 4, 4), normal(1, 4, 1, 4, 4), torch.tensor([1, 20, 500, 999])
    x_t = diffusion.add_noise(x, t, eps)
    found = diffusion.predict(torch.cat([eps, -torch.ones_like(eps)], dim=1), x_t, t)
    terms = bound.bound_terms(diffusion, found.x_start, found.log_variance, x, x_t, t)
    torch.testing.assert_close(terms, torch.zeros_like(terms), rtol=0, atol=1e-9)


def test_the_bound_counts_in_bits(diffusion):
    x, eps, t = normal(0, 2, 1, 4, 4), normal(1, 2, 1, 4, 4), torch.tensor([5, 700])
    x_t = diffusion.add_noise(x, t, eps)
    found = diffusion.predict(silent(x_t, t), x_t, t)
    true_mean, true_log_variance = diffusion.posterior(x, x_t, t)
    beta, alpha_bar = diffusion.betas[t].view(-1, 1, 1, 1), diffusion.alpha_bar[t].view(-1, 1, 1, 1)
    mean = (x_t - beta / (1 - alpha_bar).sqrt() * found.eps) / (1 - beta).sqrt()
    nats = torch.distributions.kl_divergence(
        torch.distributions.Normal(true_mean, (true_log_variance / 2).exp().expand_as(x)),
        torch.distributions.Normal(mean, (found.log_variance / 2).exp()),
    )
    terms = bound.bound_terms(diffusion, found.x_start, found.log_variance, x, x_t, t)
    torch.testing.assert_close(terms, nats.flatten(1).mean(1) / math.log(2))


def chain_bound(diffusion, slope, variance, end_variance, x):
    """Bound (10.8) of one pixel x, in nats, for the steps N(slope[t]·x_t, variance[t]) from N(0, end_variance).

    The expectation over x_t is that of a square, so ten points of Gauss and Hermite give it exactly.
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(10))
    total = torch.zeros_like(x)
    for t in range(diffusion.num_steps):
        start, index = x.repeat_interleave(10).view(-1, 1, 1, 1), torch.full((10 * len(x),), t)
        x_t = diffusion.add_noise(start, index, nodes.repeat(len(x)).view(-1, 1, 1, 1))
        of_start = diffusion.posterior(torch.ones_like(x_t), torch.zeros_like(x_t), index)[
            0
        ]  # weight of x_start in the mean
        of_noisy = diffusion.posterior(torch.zeros_like(x_t), torch.ones_like(x_t), index)[0]  # of x_t
        guess = (slope[t] - of_noisy) / of_start * x_t  # the x_start that puts the mean at slope·x_t
        log_var = variance[t].log().expand_as(x_t)
        bits = bound.bound_terms(diffusion, guess, log_var, start, x_t, index)
        total += math.log(2) * (bits.view(-1, 10) * weights / weights.sum()).sum(1)
    mean, var = diffusion.alpha_bar[-1].sqrt() * x, (1 - diffusion.alpha_bar[-1]).expand_as(x)
    return total + bound.gaussian_kl(mean, var.log(), torch.zeros_like(x), end_variance.log().expand_as(x))


@pytest.mark.equation("10.8", of="ditbook.diffusion.bound.bound_terms", against="exact likelihood of a Gaussian chain")
def test_the_bound_lies_above_the_likelihood_and_touches_it():
    """Where the data are Gaussian the best reverse steps are known: with them the bound is the likelihood itself."""
    diffusion = GaussianDiffusion(torch.tensor([0.02, 0.1, 0.3, 0.5]))
    data, x = 0.3**2, torch.tensor([-0.7, -0.1, 0.2, 0.6], dtype=torch.float64)
    noisy = diffusion.alpha_bar * data + 1 - diffusion.alpha_bar  # variance of x_t
    before = torch.cat([noisy.new_tensor([data]), noisy[:-1]])
    slope = diffusion.alphas.sqrt() * before / noisy
    variance = before * diffusion.betas / noisy

    def nll(slope, variance):  # of the bin of width 2/255 around x, the chain's steps multiplied out
        spread = noisy[-1]
        for m, v in zip(reversed(slope), reversed(variance), strict=True):
            spread = m**2 * spread + v
        return 0.5 * (x**2 / spread + (2 * math.pi * spread).log()) - math.log(2 / 255)

    exact = chain_bound(diffusion, slope, variance, noisy[-1], x)
    torch.testing.assert_close(exact, nll(slope, variance), rtol=0, atol=2e-4)
    for worse_slope, worse_variance in ((0.9 * slope, variance), (slope, 1.3 * variance), (slope, 0.8 * variance)):
        gap = chain_bound(diffusion, worse_slope, worse_variance, noisy[-1], x) - nll(worse_slope, worse_variance)
        assert (gap > 0.003).all()


@pytest.mark.equation("11.6", of="ditbook.diffusion.bound.bound_terms", against="divergence of two joint Gaussians")
@pytest.mark.equation("11.8", of="ditbook.diffusion.bound.bound_terms", against="divergence of two joint Gaussians")
@pytest.mark.equation("11.9", of="ditbook.diffusion.bound.gaussian_kl", against="divergence of two joint Gaussians")
def test_bound_and_gap_of_a_chain_are_divergences_of_whole_paths():
    """The mean of the bound over the data, less their entropy, is KL(q ‖ p) over x₀ … x_T, and a sum over its steps."""
    diffusion = GaussianDiffusion(torch.tensor([0.02, 0.1, 0.3, 0.5]))
    data, steps = torch.tensor(0.15**2, dtype=torch.float64), diffusion.num_steps
    noisy = diffusion.alpha_bar * data + 1 - diffusion.alpha_bar  # variance of x_t
    before = torch.cat([data[None], noisy[:-1]])
    slope, variance = diffusion.alphas.sqrt() * before / noisy, before * diffusion.betas / noisy  # of the true steps
    model_slope, model_variance = 0.9 * slope, 1.2 * variance

    forth = torch.eye(steps + 1, dtype=torch.float64)  # x₀ … x_T from independent normal numbers, and the same from x_T
    forth[0, 0], back = data.sqrt(), torch.eye(steps + 1, dtype=torch.float64)
    for t in range(steps):
        forth[t + 1] = diffusion.alphas[t].sqrt() * forth[t]
        forth[t + 1, t + 1] = diffusion.betas[t].sqrt()
    for t in reversed(range(steps)):
        back[t] = model_slope[t] * back[t + 1]
        back[t, t] = model_variance[t].sqrt()
    joint = [torch.distributions.MultivariateNormal(forth.new_zeros(steps + 1), m @ m.T) for m in (forth, back)]
    wanted = torch.distributions.kl_divergence(*joint)

    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(10))
    values = chain_bound(diffusion, model_slope, model_variance, data.new_ones(()), data.sqrt() * nodes)
    mean = (values * weights / weights.sum()).sum() + math.log(2 / 255)  # of a density, not of a bin
    assert (mean - 0.5 * (1 + (2 * math.pi * data).log())).item() == pytest.approx(wanted.item(), abs=2e-3)

    zero = data.new_zeros(())
    gap = bound.gaussian_kl(zero, noisy[-1].log(), zero, zero)
    for t in range(steps):  # the mean square of the difference of the means, over x_t
        apart = (slope[t] - model_slope[t]).square() * noisy[t]
        gap = gap + bound.gaussian_kl(apart.sqrt(), variance[t].log(), zero, model_variance[t].log())
    assert gap.item() == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.equation("11.4", of="ditbook.diffusion.bound.gaussian_kl", against="exact likelihood of a linear model")
@pytest.mark.equation("11.5", of="ditbook.diffusion.bound.gaussian_kl", against="exact likelihood of a linear model")
def test_bound_and_divergence_of_a_linear_model_are_its_likelihood():
    """z normal, x normal around w z: every term of the identity is known."""
    w, noise = torch.tensor(1.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    x, mean, log_var = normal(3, 20), normal(4, 20), normal(5, 20)
    exact = torch.distributions.Normal(0.0, (w**2 + noise**2).sqrt()).log_prob(x)
    squares = (x - w * mean) ** 2 + w**2 * log_var.exp()  # of x − w z, on average over the proposal
    explained = -squares / (2 * noise**2) - 0.5 * (2 * math.pi * noise**2).log()
    elbo = explained - bound.gaussian_kl(mean, log_var, torch.zeros_like(x), torch.zeros_like(x))
    precision = 1 + w**2 / noise**2
    gap = bound.gaussian_kl(mean, log_var, w * x / noise**2 / precision, -precision.log().expand_as(x))
    assert (elbo < exact).all()
    torch.testing.assert_close(elbo + gap, exact)


@pytest.mark.equation(
    "16.19", of="ditbook.diffusion.bound.variational_bound", against="torch.distributions, term by term"
)
def test_the_whole_bound():
    diffusion = GaussianDiffusion(torch.linspace(0.1, 0.5, 5, dtype=torch.float64), learn_sigma=True)
    x = (normal(0, 3, 1, 2, 2).clamp(-1, 1) * 127.5).round() / 127.5
    y = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(-1, 1, 1, 1)

    def model(x, t, y):
        return torch.cat([0.4 * x + y, torch.tanh(x) + 0.1 * t.view(-1, 1, 1, 1)], dim=1)

    noise = torch.Generator().manual_seed(7)
    found = bound.variational_bound(model, diffusion, x, torch.Generator().manual_seed(7), y=y)
    for step in range(5):
        t = torch.full((3,), step)
        x_t = diffusion.add_noise(x, t, torch.randn(x.shape, generator=noise))
        eps, v = model(x_t, t, y).chunk(2, dim=1)
        guess = (x_t - (1 - diffusion.alpha_bar[step]).sqrt() * eps) / diffusion.alpha_bar[step].sqrt()
        (mean, _), (truth, _) = diffusion.posterior(guess, x_t, t), diffusion.posterior(x, x_t, t)
        variance = diffusion.posterior_variance[max(step, 1)]  # the first is zero
        beta = diffusion.betas[step]
        variances = {"posterior": variance, "beta": beta, "learned": beta ** ((1 + v) / 2) * variance ** ((1 - v) / 2)}
        for name, chosen in variances.items():
            reverse = torch.distributions.Normal(mean, torch.as_tensor(chosen).expand_as(x).sqrt())
            if step == 0:
                inside = reverse.cdf(torch.where(x > 0.999, math.inf, x + 1 / 255)) - reverse.cdf(
                    torch.where(x < -0.999, -math.inf, x - 1 / 255)
                )
                term = -inside.clamp(min=1e-12).log2().mean()
            else:
                forward = torch.distributions.Normal(truth, torch.as_tensor(variance).expand_as(x).sqrt())
                term = torch.distributions.kl_divergence(forward, reverse).mean() / math.log(2)
            assert found[name][step].item() == pytest.approx(term.item(), rel=1e-6)
    last = torch.distributions.Normal(diffusion.alpha_bar[-1].sqrt() * x, (1 - diffusion.alpha_bar[-1]).sqrt())
    prior = torch.distributions.kl_divergence(last, torch.distributions.Normal(0.0, 1.0)).mean() / math.log(2)
    assert {len(terms) for terms in found.values()} == {6}
    assert all(terms[-1].item() == pytest.approx(prior.item(), rel=1e-6) for terms in found.values())


@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_the_bound_is_one_for_every_parameterization(predicts):
    """A model that says the same in other words has the same terms."""
    plain = GaussianDiffusion(schedules.linear(8, 0.01, 0.3), predicts="eps", learn_sigma=True)
    other = GaussianDiffusion(schedules.linear(8, 0.01, 0.3), predicts=predicts, learn_sigma=True)
    x = (normal(0, 3, 1, 2, 2).clamp(-1, 1) * 127.5).round() / 127.5

    def model(x, t):
        return torch.cat([0.4 * x, torch.tanh(x)], dim=1)

    def same(x, t):
        value, logits = model(x, t).chunk(2, dim=1)
        return torch.cat([getattr(plain.convert(value, x, t, "eps"), predicts), logits], dim=1)

    wanted = bound.variational_bound(model, plain, x, torch.Generator().manual_seed(7))
    found = bound.variational_bound(same, other, x, torch.Generator().manual_seed(7))
    assert found.keys() == wanted.keys() == {"learned", "posterior", "beta"}
    for name, terms in wanted.items():
        torch.testing.assert_close(found[name], terms, rtol=1e-7, atol=1e-9)


def test_from_pure_noise_the_prior_costs_nothing():
    betas = schedules.zero_terminal_snr(schedules.linear(20, 0.01, 0.3))
    terms = bound.variational_bound(
        lambda x, t: 0.5 * x, GaussianDiffusion(betas, predicts="v"), normal(0, 2, 1, 2, 2), torch.Generator()
    )
    assert terms.keys() == {"posterior", "beta"}
    for values in terms.values():
        assert values.isfinite().all()
        assert values[-1] == 0


def losses_of(t, generator):
    """Losses that differ by a factor of a hundred between timesteps, and scatter."""
    return 10 ** (t.double() / 10 - 1) * torch.rand(len(t), generator=generator).double()


def test_timesteps_are_uniform_until_all_are_known():
    sampler = bound.ImportantTimesteps(20, torch.device("cpu"), keep=3)
    sampler.update(torch.arange(20).repeat(2), torch.rand(40))
    sampler.update(torch.arange(19), torch.rand(19))
    torch.testing.assert_close(sampler.probabilities(), torch.full((20,), 0.05))
    t, weights = sampler.sample(1000, torch.Generator().manual_seed(0))
    assert t.bincount(minlength=20).min() > 20
    torch.testing.assert_close(weights, torch.ones(1000))
    sampler.update(torch.tensor([19]), torch.rand(1))
    assert sampler.probabilities().std() > 0


@pytest.mark.equation(
    "11.14",
    of="ditbook.diffusion.bound.ImportantTimesteps.probabilities",
    against="lists of the last losses; Improved DDPM equation 18",
)
def test_probabilities_follow_the_last_losses():
    """Against lists of the last losses, kept one by one, as the paper defines them."""
    sampler, kept = bound.ImportantTimesteps(6, torch.device("cpu"), keep=4), [[] for _ in range(6)]
    generator = torch.Generator().manual_seed(0)
    for size in (3, 50, 1, 30, 7, 64, 2, 5):
        t = torch.randint(6, (size,), generator=generator)
        values = (1 + t) * torch.rand(size, generator=generator)
        sampler.update(t, values)
        for step, value in zip(t.tolist(), values.tolist(), strict=True):
            kept[step] = [*kept[step], value][-4:]
    root = torch.tensor([sum(v**2 for v in values) / 4 for values in kept]).sqrt()
    torch.testing.assert_close(sampler.probabilities(), 0.999 * root / root.sum() + 0.001 / 6)
    t, weights = sampler.sample(60_000, generator)
    frequency = t.bincount(minlength=6) / 60_000
    torch.testing.assert_close(frequency, sampler.probabilities(), rtol=0.05, atol=0.002)
    torch.testing.assert_close(weights, 1 / (6 * sampler.probabilities()[t]))


def test_weighted_losses_have_the_mean_of_uniform_ones_and_less_variance():
    sampler = bound.ImportantTimesteps(20, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        sampler.update(torch.arange(20), losses_of(torch.arange(20), generator))
    uniform = torch.randint(20, (100_000,), generator=generator)
    t, weights = sampler.sample(100_000, generator)
    plain, weighted = losses_of(uniform, generator), weights * losses_of(t, generator)
    assert weighted.mean().item() == pytest.approx(plain.mean().item(), rel=0.02)
    assert weighted.var() < plain.var() / 2


def test_losses_of_zero_stay_uniform():
    sampler = bound.ImportantTimesteps(4, torch.device("cpu"), keep=1)
    sampler.update(torch.arange(4), torch.zeros(4))
    torch.testing.assert_close(sampler.probabilities(), torch.full((4,), 0.25))
