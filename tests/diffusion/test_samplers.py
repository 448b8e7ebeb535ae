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
@pytest.mark.parametrize("variance", ["large", "small"])
def test_ddpm_is_algorithm_2(variance):
    diffusion = GaussianDiffusion(schedules.linear(30, 0.01, 0.3))
    model, start = oracle(diffusion), noise(0, 2, 1, 3, 3)
    generator = torch.Generator().manual_seed(7)
    drawn = samplers.ddpm(model, start, diffusion, generator=generator, variance=variance)

    generator, x = torch.Generator().manual_seed(7), start
    for t in reversed(range(30)):
        beta, alpha_bar = diffusion.betas[t], diffusion.alpha_bar[t]
        x = (x - beta / (1 - alpha_bar).sqrt() * model(x, torch.full((2,), t))) / (1 - beta).sqrt()
        if t > 0:
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            posterior = beta * (1 - diffusion.alpha_bar[t - 1]) / (1 - alpha_bar)
            x = x + (beta if variance == "large" else posterior).sqrt() * z
    torch.testing.assert_close(drawn, x, rtol=1e-9, atol=1e-9)


def test_ddpm_with_a_variance_head_uses_its_logits():
    diffusion = GaussianDiffusion(schedules.linear(30, 0.01, 0.3))
    model, start = oracle(diffusion), noise(0, 2, 1, 3, 3)

    def head(logit):
        def with_head(x, t):
            return torch.cat([model(x, t), torch.full_like(x, logit)], dim=1)

        generator = torch.Generator().manual_seed(7)
        return samplers.ddpm(with_head, start, diffusion, generator=generator)

    for logit, variance in ((1, "large"), (-1, "small")):
        generator = torch.Generator().manual_seed(7)
        fixed = samplers.ddpm(model, start, diffusion, generator=generator, variance=variance)
        torch.testing.assert_close(head(logit), fixed)
    assert not torch.allclose(head(1), head(-1))


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_the_best_prediction_draws_the_data(diffusion, sampler):
    respaced = diffusion.respace(50)
    drawn = sampler(oracle(diffusion), noise(0, 100, 1, 12, 12), respaced, generator=torch.Generator().manual_seed(1))
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std().item() == pytest.approx(STD, abs=0.04)  # 50 steps of ddim are a little narrow


def test_ddim_without_noise_is_a_function_of_its_start(diffusion):
    respaced, start = diffusion.respace(20), noise(0, 2, 1, 3, 3)
    first, second = (
        samplers.ddim(oracle(diffusion), start, respaced, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    )
    assert torch.equal(first, second)


def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(diffusion):
    respaced, start = diffusion.respace(20), noise(0, 2, 1, 3, 3)
    implicit = samplers.ddim(oracle(diffusion), start, respaced, eta=1.0, generator=torch.Generator().manual_seed(1))
    ancestral = samplers.ddpm(
        oracle(diffusion), start, respaced, variance="small", generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(implicit, ancestral, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
@pytest.mark.parametrize("parameterization", ["x_start", "v"])
def test_the_same_knowledge_in_other_words_draws_the_same(diffusion, sampler, parameterization):
    respaced, start, model = diffusion.respace(20), noise(0, 2, 1, 3, 3), oracle(diffusion)

    def other(x, t):
        return getattr(diffusion.predict(model(x, t), x, t, "eps"), parameterization)

    drawn = sampler(
        other, start, respaced, parameterization=parameterization, generator=torch.Generator().manual_seed(1)
    )
    wanted = sampler(model, start, respaced, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_clipping_bounds_every_predicted_image(diffusion, sampler):
    seen = []

    def wild(x, t):
        return -3 * x

    drawn = sampler(
        wild,
        noise(0, 2, 1, 3, 3),
        diffusion.respace(10),
        clip=1.0,
        generator=torch.Generator().manual_seed(1),
        callback=lambda index, x, prediction: seen.append((index, prediction.x_start.abs().max().item())),
    )
    assert [index for index, _ in seen] == list(range(9, -1, -1))
    assert all(bound <= 1 for _, bound in seen)
    assert drawn.abs().max() <= 1 + 1e-9


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_the_model_is_asked_about_training_timesteps_with_its_condition(diffusion, sampler):
    asked = []

    def model(x, t, y):
        asked.append((t.tolist(), y.tolist()))
        return torch.zeros_like(x)

    sampler(model, noise(0, 2, 1, 2, 2), diffusion.respace(3), y=torch.tensor([4, 5]))
    assert asked == [([t, t], [4, 5]) for t in (999, 500, 0)]
