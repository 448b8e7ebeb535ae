import pytest
import torch

from ditbook import rng
from ditbook.diffusion import bound, flow, losses, schedules, weighting
from ditbook.diffusion.gaussian import GaussianDiffusion


@pytest.fixture(scope="module")
def diffusion():
    return GaussianDiffusion(schedules.linear(1000))


@pytest.fixture(scope="module")
def with_head():
    return GaussianDiffusion(schedules.linear(1000), learn_sigma=True)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def silent(x, t):
    """A model at step 0 of training: every output zero."""
    return x.new_zeros(len(x), 2 * x.shape[1], *x.shape[2:])


@pytest.mark.equation("10.12", of="ditbook.diffusion.losses.simple_loss", against="DDPM equation 14 written out")
@pytest.mark.parametrize("parameterization", ["eps", "x_start", "v"])
def test_simple_loss(parameterization):
    diffusion = GaussianDiffusion(schedules.linear(1000), predicts=parameterization)
    x, eps, t = normal(0, 5, 1, 3, 3), normal(1, 5, 1, 3, 3), torch.tensor([0, 10, 200, 600, 999])
    alpha_bar = diffusion.alpha_bar[t].view(-1, 1, 1, 1)
    x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * eps
    target = {"eps": eps, "x_start": x, "v": alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x}[parameterization]

    def model(x, t, y):
        return 0.3 * x + y.view(-1, 1, 1, 1)

    y = torch.arange(5.0, dtype=torch.float64)
    loss = losses.simple_loss(model, diffusion, x, t, eps, y=y)
    wanted = (0.3 * x_t + y.view(-1, 1, 1, 1) - target).square().sum() / x.numel()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    each = losses.simple_loss(model, diffusion, x, t, eps, reduction="none", y=y)
    torch.testing.assert_close(each, (0.3 * x_t + y.view(-1, 1, 1, 1) - target).square().mean((1, 2, 3)))


@pytest.mark.equation(
    "11.17", of="ditbook.diffusion.losses.simple_loss", against="distance from the score of a mixture"
)
@pytest.mark.parametrize("index", [50, 300])
def test_denoising_is_score_matching(mixture, index):
    """Losses of two predictions of the noise differ as their distances from the best one, −b times the score, do."""
    process, generator = GaussianDiffusion(schedules.linear(1000)), torch.Generator().manual_seed(0)
    count = 200_000
    kind = (torch.rand(count, generator=generator) < mixture.weights[1]).long()
    x, eps = torch.randn(2, count, 1, generator=generator, dtype=torch.float64)
    x, t = mixture.means[kind, None] + mixture.stds[kind, None] * x, torch.full((count,), index)
    x_t, (a, b) = process.add_noise(x, t, eps), process.scales(index)
    a, b = (torch.tensor(value, dtype=torch.float64) for value in (a, b))

    def best(x, t=None):
        return (x - a * mixture.x_start(x, a, b)) / b

    models = (lambda x, t: 0.5 * x, lambda x, t: torch.tanh(x))
    loss = [losses.simple_loss(model, process, x, t, eps) for model in models]
    distance = [(model(x_t, t) - best(x_t)).square().mean() for model in models]
    floor = losses.simple_loss(best, process, x, t, eps)
    for found, apart in zip(loss, distance, strict=True):
        assert (found - floor).item() == pytest.approx(apart.item(), rel=0.02, abs=2e-3)


def test_simple_loss_asks_about_training_timesteps(diffusion):
    asked = []

    def model(x, t):
        asked.extend(t.tolist())
        return x

    x = normal(0, 2, 1, 2, 2)
    losses.simple_loss(model, diffusion.respace(50), x, torch.tensor([1, 49]), x)
    assert asked == [20, 999]


def test_simple_loss_refuses_a_variance_head(diffusion):
    x = normal(0, 2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"learn_sigma=False expects \(2, 1, 2, 2\)"):
        losses.simple_loss(silent, diffusion, x, torch.tensor([1, 2]), x)


@pytest.mark.equation(
    "16.12", of="ditbook.diffusion.losses.hybrid_loss", against="step-0 loss of DiT: 1 for the noise, 0.01615 bits"
)
def test_hybrid_loss_at_step_0_of_training(with_head):
    t = torch.arange(1000)
    x, eps = normal(0, 1000, 4, 16, 16), normal(1, 1000, 4, 16, 16)
    loss = losses.hybrid_loss(silent, with_head, x, t, eps).item()
    assert loss - eps.square().mean().item() == pytest.approx(0.01615, rel=0.01)
    assert loss == pytest.approx(1.016, abs=0.005)


def test_the_bound_trains_only_the_variance_head(with_head):
    x, eps, t = normal(0, 3, 1, 4, 4), normal(1, 3, 1, 4, 4), torch.tensor([0, 30, 900])
    noise = normal(2, 3, 1, 4, 4).requires_grad_()
    logits = normal(3, 3, 1, 4, 4).requires_grad_()

    def model(x, t):
        return torch.cat([noise, logits], dim=1)

    losses.hybrid_loss(model, with_head, x, t, eps).backward()
    torch.testing.assert_close(noise.grad, 2 * (noise - eps).detach() / eps.numel())  # of the simple loss alone
    assert (logits.grad.flatten(1).abs().sum(1) > 0).all()


def test_hybrid_loss_needs_a_variance_head(diffusion):
    x = normal(0, 2, 1, 2, 2)
    with pytest.raises(ValueError, match="learn_sigma=True"):
        losses.hybrid_loss(lambda x, t: x, diffusion, x, torch.tensor([1, 2]), x)
    with pytest.raises(ValueError, match="take 'mean' or 'none'"):
        losses.simple_loss(lambda x, t: x, diffusion, x, torch.tensor([1, 2]), x, reduction="sum")


class Conditional(torch.nn.Module):
    """Predicts from image, time and label; label 9 means none. Keeps the labels it was called with."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def null_condition(self, y):
        return {"y": torch.full_like(y, 9)}

    def forward(self, x, t, y):
        self.labels = y
        return (torch.sin(x) + 0.1 * y.view(-1, 1, 1, 1) + 0.001 * t.view(-1, 1, 1, 1)).repeat(1, self.channels, 1, 1)


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_training_step_draws_time_noise_and_dropout_in_this_order(learn_sigma):
    diffusion = GaussianDiffusion(schedules.linear(1000), learn_sigma=learn_sigma)
    model, x, y = Conditional(1 + learn_sigma), normal(0, 64, 1, 2, 2), torch.arange(64) % 9
    found = losses.denoising_loss(model, diffusion, x, torch.Generator().manual_seed(5), dropout=0.3, y=y)
    generator = torch.Generator().manual_seed(5)
    t = torch.randint(1000, (64,), generator=generator)
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    dropped = torch.rand(64, generator=generator) < 0.3
    assert 0 < dropped.sum() < 64
    assert torch.equal(model.labels, torch.where(dropped, 9, y))
    loss = losses.hybrid_loss if learn_sigma else losses.simple_loss
    assert torch.equal(found, loss(model, diffusion, x, t, eps, y=torch.where(dropped, 9, y)))


def test_without_dropout_no_null_condition_is_needed(diffusion):
    x = normal(0, 4, 1, 2, 2)
    losses.denoising_loss(lambda x, t, y: x, diffusion, x, torch.Generator().manual_seed(0), y=torch.arange(4))
    with pytest.raises(ValueError, match=r"function has no null_condition\(\*\*condition\)"):
        losses.denoising_loss(
            lambda x, t, y: x, diffusion, x, torch.Generator().manual_seed(0), dropout=0.1, y=torch.arange(4)
        )


@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
@pytest.mark.parametrize("variance", ["beta", "posterior", "learned", None])
def test_the_mean_of_the_bound_loss_is_the_bound(predicts, variance):
    """Every timestep once, with the noise that `variational_bound` draws, against its sum without the prior's term."""
    diffusion = GaussianDiffusion(schedules.linear(12, 0.01, 0.3), predicts=predicts, learn_sigma=True)
    x = (normal(0, 3, 1, 2, 2).clamp(-1, 1) * 127.5).round() / 127.5

    def model(x, t):
        return torch.cat([0.4 * x, torch.tanh(x)], dim=1)

    terms = bound.variational_bound(model, diffusion, x, torch.Generator().manual_seed(7))[variance or "learned"]
    generator = torch.Generator().manual_seed(7)
    eps = torch.stack([torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(12)])
    t = torch.arange(12).repeat_interleave(3)
    loss = losses.bound_loss(model, diffusion, x.repeat(12, 1, 1, 1), t, eps.flatten(0, 1), variance=variance)
    assert loss.item() == pytest.approx(terms[:-1].sum().item(), rel=1e-9)
    each = losses.bound_loss(
        model, diffusion, x.repeat(12, 1, 1, 1), t, eps.flatten(0, 1), variance=variance, reduction="none"
    )
    torch.testing.assert_close(each.view(12, 3).mean(1), 12 * terms[:-1])


def test_the_bound_loss_trains_both_heads_and_knows_its_variances(with_head, diffusion):
    x, eps, t = normal(0, 3, 1, 4, 4), normal(1, 3, 1, 4, 4), torch.tensor([1, 30, 900])
    output = normal(2, 3, 2, 4, 4).requires_grad_()
    losses.bound_loss(lambda x, t: output, with_head, x, t, eps).backward()
    assert (output.grad.flatten(2).abs().sum(2) > 0).all()
    with pytest.raises(ValueError, match="take 'beta', 'posterior', or 'learned'"):
        losses.bound_loss(lambda x, t: x, diffusion, x, t, eps, variance="learned")


def test_a_training_step_along_straight_paths():
    model, x, y = Conditional(1), normal(0, 16, 1, 2, 2), torch.arange(16) % 9
    paths = flow.Flow(flow.uniform_times(10), shift=2.0)
    found = losses.denoising_loss(model, paths, x, torch.Generator().manual_seed(5), dropout=0.3, y=y)
    wanted = flow.flow_loss(model, paths, x, torch.Generator().manual_seed(5), dropout=0.3, y=y)
    assert torch.equal(found, wanted)
    with pytest.raises(ValueError, match="straight paths take no weighting"):
        losses.denoising_loss(model, paths, x, torch.Generator(), weighting=weighting.min_snr, y=y)


@pytest.mark.parametrize("diffusion", [GaussianDiffusion(schedules.linear(1000)), flow.Flow(flow.uniform_times(1000))])
def test_the_loss_by_time_is_that_of_the_quarters(diffusion):
    """A model that says nothing is wrong by what is wanted, noise of variance one, at all times."""
    heard = []

    def model(x, t):
        heard.append(t)
        return torch.zeros_like(x)

    x = torch.zeros(400, 1, 2, 2)
    found = losses.loss_by_time(model, diffusion, x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.ones(4), rtol=0.2, atol=0)  # the variance of the noise
    for part in range(4):
        t = heard[0][part::4]
        assert (t >= 250 * part - 1).all()
        assert (t <= 250 * (part + 1)).all()
        assert t.max() - t.min() > 200


def test_the_loss_by_time_is_the_simple_loss_of_each_part(diffusion):
    def model(x, t, y):
        return x.sin() + (t / 500 + y).view(-1, 1, 1, 1)

    x, y = normal(0, 8, 1, 2, 2), torch.arange(8.0, dtype=torch.float64)
    found = losses.loss_by_time(model, diffusion, x, torch.Generator().manual_seed(1), y=y)
    generator, part = torch.Generator().manual_seed(1), torch.arange(8) % 4
    t = ((part + rng.rand(part.shape, generator, part.device)) / 4 * 1000).long()
    eps = rng.randn(x.shape, generator, x)
    each = losses.simple_loss(model, diffusion, x, t, eps, reduction="none", y=y)
    torch.testing.assert_close(found, torch.stack([each[k::4].mean() for k in range(4)]))
