import math
from functools import partial

import pytest
import torch

from ditbook.diffusion import flow, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(seed, *shape):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture
def paths():
    return flow.Flow(flow.uniform_times(10))


def test_the_image_is_at_time_0_and_noise_at_1(paths):
    assert paths.times.tolist() == pytest.approx([k / 10 for k in range(1, 11)])
    assert paths.scales(-1) == (1, 0)
    assert paths.scales(9) == (0, 1)
    assert paths.scales(2) == pytest.approx((0.7, 0.3))
    assert paths.sigmas[2].item() == pytest.approx(3 / 7)
    assert paths.training_timesteps(torch.tensor([0, 4, 9])).tolist() == pytest.approx([100, 500, 1000])


@pytest.mark.equation(
    "12.15", of="ditbook.diffusion.flow.Flow.convert", against="x₀, ε and v that are known, from each of them"
)
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_every_parameterization_gives_all_three_back(paths, predicts):
    x, eps, t = noise(0, 3, 2, 2), noise(1, 3, 2, 2), torch.tensor([0, 4, 8])
    time = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).view(-1, 1, 1)
    truth = {"x_start": x, "eps": eps, "v": eps - x}
    x_t = x + time * truth["v"]
    for found in (
        paths.convert(truth[predicts], x_t, t, predicts),
        flow.Flow(flow.uniform_times(10), predicts=predicts).predict(truth[predicts], x_t, t),
    ):
        for name, wanted in truth.items():
            torch.testing.assert_close(getattr(found, name), wanted)


@pytest.mark.parametrize("predicts", ["x_start", "v"])
def test_from_pure_noise(paths, predicts):
    x, eps, t = noise(0, 3, 2), noise(1, 3, 2), torch.full((3,), 9)
    found = paths.convert({"x_start": x, "v": eps - x}[predicts], eps, t, predicts)
    torch.testing.assert_close(found.x_start, x)
    torch.testing.assert_close(found.eps, eps)
    torch.testing.assert_close(found.v, eps - x)


@pytest.mark.equation(
    "12.16", of="ditbook.diffusion.flow.Flow.at_sigmas", against="a Gaussian process at the same noise levels"
)
def test_velocity_and_noise_predictions_take_the_same_path():
    """An image on a straight path is one of the Gaussian process, scaled; there Euler's step is that of DDIM."""
    straight = flow.Flow(torch.linspace(0.02, 0.98, 20, dtype=torch.float64))
    gaussian = GaussianDiffusion(schedules.linear(1000)).at_sigmas(straight.sigmas)
    scale = [gaussian.scales(i)[0] / straight.scales(i)[0] for i in range(20)]
    torch.testing.assert_close(straight.sigmas, gaussian.sigmas)

    def eps(z, i):  # a noise prediction that depends on the image and the level
        return torch.tanh(z) + 0.1 * i

    def noise_model(z, t):
        return eps(z, (gaussian.timesteps - t[0]).abs().argmin())

    def velocity_model(x, t):
        i = (straight.timesteps - t[0]).abs().argmin()
        index = torch.full((len(x),), i)
        return straight.convert(eps(scale[i] * x, i), x, index, "eps").v

    x = noise(0, 3, 1, 2, 2)
    ours = samplers.progressive(velocity_model, x, straight, step=flow.euler)
    theirs = samplers.progressive(noise_model, scale[19] * x, gaussian, step=samplers.ddim)
    for first, second in zip(ours, theirs, strict=True):
        factor = scale[first.i - 1] if first.i else 1.0
        torch.testing.assert_close(factor * first.x, second.x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_is_eulers_step_on_a_flow(eta):
    """Without noise; with it, what is left of the old noise and the fresh noise make up the next level's."""

    def model(x, t):
        return torch.tanh(x) + 0.001 * t[0]

    paths, x = flow.Flow(flow.uniform_times(6)), noise(0, 3, 1, 2, 2)
    found = list(samplers.progressive(model, x, paths, step=partial(samplers.ddim, eta=eta), generator=seeded(2)))
    if eta == 0:
        wanted = samplers.progressive(model, x, paths, step=flow.euler)
        for first, second in zip(found, wanted, strict=True):
            torch.testing.assert_close(first.x, second.x)
    start, fresh = found[0].prediction, torch.randn(x.shape, generator=seeded(2), dtype=x.dtype)
    left = found[0].x - (1 - 5 / 6) * start.x_start  # at t = 5/6, the step from pure noise
    torch.testing.assert_close(left, 5 / 6 * ((1 - eta**2) ** 0.5 * start.eps + eta * fresh))


def test_the_angle_is_the_clock_of_the_gaussian_process():
    """Along x = cos(θ) x₀ + sin(θ) ε the derivative of x is v, and a small step of Euler's along it is right."""
    process = GaussianDiffusion(schedules.linear(1000), predicts="v")
    x, eps = noise(0, 1, 3), noise(1, 1, 3)
    torch.testing.assert_close(process.clock.cos(), process.alpha_bar.sqrt())
    wanted = process.clock.cos()[:, None] * x + process.clock.sin()[:, None] * eps
    moved = (wanted[500] - wanted[499]) / (process.clock[500] - process.clock[499])
    v = process.targets(x, eps, torch.tensor([500])).v
    torch.testing.assert_close(moved[None], v, rtol=0.01, atol=0.01)


@pytest.mark.equation(
    "12.5", of="ditbook.diffusion.flow.euler", against="(φ′ − φ) times cos φ ε − sin φ x₀, written out"
)
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
def test_on_a_gaussian_process_eulers_step_is_along_the_angle(predicts):
    process = GaussianDiffusion(schedules.cosine(1000), predicts=predicts).respace(8)

    def model(x, t):
        return torch.tanh(x) + 0.001 * t[0]

    x = noise(0, 3, 2, 2)
    for frame in samplers.progressive(model, x, process, step=flow.euler):
        index = torch.full((3,), frame.i)
        found = process.predict(model(x, process.training_timesteps(index)), x, index)
        angle, after = (value.sqrt().arccos() for value in (process.alpha_bar[index], process.alpha_bar_prev[index]))
        v = angle.cos()[0] * found.eps - angle.sin()[0] * found.x_start
        torch.testing.assert_close(frame.x, x + (after - angle)[0] * v, rtol=1e-6, atol=1e-6)
        x = frame.x


@pytest.mark.parametrize("step", [flow.euler, flow.heun])
def test_a_single_step_is_enough_where_paths_do_not_cross(step):
    image = noise(3, 1, 2, 2)

    def model(x, t):  # all paths lead to one image
        return (x - image) / (t.to(x.dtype) / 1000).view(-1, 1, 1)

    found = samplers.sample(model, noise(0, 5, 2, 2), flow.Flow(flow.uniform_times(1)), step=step)
    torch.testing.assert_close(found, image.expand(5, 2, 2))


@pytest.mark.parametrize(("step", "error"), [(flow.euler, 0.025), (flow.heun, 3e-4)])
def test_normal_data(step, error):
    """For data N(0.4, 0.5²) the flow is known: it keeps the number of standard deviations."""

    def model(x, t):
        time = (t.to(x.dtype) / 1000).view(-1, 1)
        spread = ((1 - time) * 0.5) ** 2 + time**2
        start = 0.4 + (1 - time) * 0.25 / spread * (x - (1 - time) * 0.4)
        return (x - start) / time

    x = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    found = samplers.sample(model, x, flow.Flow(flow.uniform_times(100)), step=step)
    torch.testing.assert_close(found, 0.4 + 0.5 * x, rtol=0, atol=error)


@pytest.mark.parametrize(("t", "moved"), [(0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 0.9), (0.9, 27 / 28)])
def test_shift(t, moved):
    time = torch.tensor(t, dtype=torch.float64)
    found = flow.shifted(time, 3.0)
    assert found.item() == pytest.approx(moved)
    assert flow.shifted(found, 1 / 3).item() == pytest.approx(t)
    log_snr = [2 * ((1 - time) / time).log().item() for time in (time, found)]
    assert log_snr[1] - log_snr[0] == pytest.approx(-2 * math.log(3))


def test_a_shift_is_kept_and_applied_once():
    paths = flow.Flow(flow.uniform_times(8), shift=3.0, predicts="x_start")
    few = paths.respace(4)
    torch.testing.assert_close(few.times, flow.shifted(torch.tensor([0.25, 0.5, 0.75, 1.0]).double(), 3.0))
    assert (few.shift, few.predicts, few.num_steps) == (3.0, "x_start", 4)
    again = paths.at_sigmas(paths.sigmas)
    torch.testing.assert_close(again.times, paths.times)
    assert (again.shift, again.predicts) == (3.0, "x_start")


def test_distributions_of_times():
    count, device = 40_000, torch.device("cpu")
    even, middle = (draw(count, seeded(), device) for draw in (flow.uniform, flow.logit_normal))
    assert even.shape == middle.shape == (count,)
    assert even.histc(4, 0, 1).tolist() == pytest.approx([count / 4] * 4, rel=0.03)
    moved = partial(flow.logit_normal, mean=-0.5, std=0.7)(count, seeded(), device)
    for times, mean, std in ((middle, 0.0, 1.0), (moved, -0.5, 0.7)):
        logits = times.logit()
        assert logits.mean().item() == pytest.approx(mean, abs=0.02)
        assert logits.std().item() == pytest.approx(std, abs=0.02)


@pytest.mark.equation("19.11", of="ditbook.diffusion.flow.flow_loss", against="path, target and mean written out")
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
@pytest.mark.parametrize("times", [flow.uniform, flow.logit_normal])
def test_the_loss_draws_times_noise_and_dropout_in_this_order(predicts, times):
    class Conditional(torch.nn.Module):
        def null_condition(self, y):
            return {"y": torch.full_like(y, 9)}

        def forward(self, x, t, y):
            self.t, self.y = t, y
            return torch.sin(x) + 0.1 * y.view(-1, 1, 1, 1)

    model, x, y = Conditional(), noise(0, 64, 1, 2, 2), torch.arange(64) % 9
    paths = flow.Flow(flow.uniform_times(10), shift=3.0, predicts=predicts)
    loss = flow.flow_loss(model, paths, x, seeded(5), times=times, dropout=0.3, y=y)
    generator = seeded(5)
    t = flow.shifted(times(64, generator, x.device), 3.0)
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    labels = torch.where(torch.rand(64, generator=generator) < 0.3, 9, y)
    assert torch.equal(model.y, labels)
    torch.testing.assert_close(model.t, 1000 * t)
    time = t.double().view(-1, 1, 1, 1)
    x_t = x + time * (eps - x)
    wanted = {"eps": eps, "x_start": x, "v": eps - x}[predicts]
    square = (torch.sin(x_t) + 0.1 * labels.view(-1, 1, 1, 1) - wanted) ** 2
    assert loss.item() == pytest.approx(square.mean().item(), rel=1e-6)


def test_the_loss_refuses_another_shape(paths):
    with pytest.raises(ValueError, match=r"prediction \(4, 2, 2, 2\) and noisy image \(4, 1, 2, 2\) differ"):
        flow.flow_loss(lambda x, t: x.repeat(1, 2, 1, 1), paths, noise(0, 4, 1, 2, 2), seeded())


@pytest.mark.parametrize("times", [[], [0.0, 0.5], [0.5, 0.5], [0.6, 0.5], [0.5, 1.1], [float("nan")], [[0.5]]])
def test_wrong_times(times):
    with pytest.raises(ValueError, match=r"times must increase in \(0, 1\]"):
        flow.Flow(torch.tensor(times))


def test_wrong_numbers(paths):
    with pytest.raises(ValueError, match="shift must be positive, got 0"):
        flow.Flow(flow.uniform_times(3), shift=0)
    with pytest.raises(ValueError, match="count must be positive, got 0"):
        paths.respace(0)
    with pytest.raises(ValueError, match="take 'eps', 'x_start' or 'v'"):
        flow.Flow(flow.uniform_times(3), predicts="velocity")
    x = noise(0, 2, 1, 2, 2)
    with pytest.raises(ValueError, match="differ in shape"):
        paths.convert(x[:, :0], x, torch.tensor([1, 2]), "v")
    with pytest.raises(ValueError, match="must lie in 0 to 9"):
        paths.convert(x, x, torch.tensor([1, 10]), "v")


def test_noisy_images_and_what_is_to_be_predicted(paths):
    x, eps, t = noise(0, 3, 2, 2), noise(1, 3, 2, 2), torch.tensor([0, 4, 9])
    x_t = paths.add_noise(x, t, eps)
    torch.testing.assert_close(x_t[0], 0.9 * x[0] + 0.1 * eps[0])
    torch.testing.assert_close(x_t[2], eps[2])
    found = paths.targets(x, eps, t)
    torch.testing.assert_close(x_t - torch.tensor([0.1, 0.5, 1.0]).view(-1, 1, 1) * found.v, x)
    assert torch.equal(found.x_start, x)
    assert torch.equal(found.eps, eps)
