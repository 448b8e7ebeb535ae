"""Our schedules and sampling steps against diffusers' schedulers, over whole trajectories."""

from functools import partial

import pytest
import torch

from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

diffusers = pytest.importorskip("diffusers")

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def fake(x, t):
    """A model that depends on image and time, not linearly; its outputs are as large as noise."""
    return torch.sin(2 * x + 0.01 * t.view(-1, 1, 1, 1)) + 0.5 * x.flip(-1)


def start(seed=0):
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def in_double(monkeypatch):
    """diffusers keeps its tables in float32; while this is in use, that name means float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)


def trajectory(scheduler, model, x, generator, **step):
    """Every image of a run of a diffusers scheduler."""
    images = []
    for t in scheduler.timesteps:
        output = model(x, t.expand(len(x)))
        x = scheduler.step(output, t, x, generator=generator, **step).prev_sample
        images.append(x)
    return images


def ours(step, diffusion, model, x, generator, clip):
    frames = samplers.progressive(model, x, diffusion, step=step, generator=generator, clip=clip)
    return [frame.x for frame in frames]


def assert_same(first, second, tolerance=1e-10):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (schedules.linear, BETAS),
        (schedules.scaled_linear, {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}),
        (schedules.cosine, {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_schedules(schedule, theirs):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, **theirs)
    torch.testing.assert_close(schedule(1000).float(), scheduler.betas, rtol=1e-5, atol=1e-7)
    alpha_bar = GaussianDiffusion(schedule(1000)).alpha_bar.float()
    torch.testing.assert_close(alpha_bar, scheduler.alphas_cumprod, rtol=1e-3, atol=1e-8)


def test_add_noise_and_velocity(in_double):
    scheduler = diffusers.DDPMScheduler(**BETAS)
    diffusion = GaussianDiffusion(schedules.linear(1000))
    x, eps, t = start(0), start(1), torch.tensor([10, 800])
    torch.testing.assert_close(diffusion.add_noise(x, t, eps), scheduler.add_noise(x, eps, t), rtol=1e-5, atol=1e-5)
    x_t = diffusion.add_noise(x, t, eps)
    velocity = diffusion.convert(eps, x_t, t, "eps").v
    torch.testing.assert_close(velocity, scheduler.get_velocity(x, eps, t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("variance", "fixed"), [("beta", "large"), ("posterior", "small")])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(
    ("parameterization", "theirs"), [("eps", "epsilon"), ("x_start", "sample"), ("v", "v_prediction")]
)
def test_ddpm_trajectory(variance, fixed, clip, parameterization, theirs, in_double):
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=60,
        beta_start=0.002,
        beta_end=0.2,
        variance_type=f"fixed_{fixed}",
        clip_sample=clip is not None,
        prediction_type=theirs,
    )
    diffusion = GaussianDiffusion(schedules.linear(60, 0.002, 0.2), predicts=parameterization)
    scheduler.set_timesteps(60)
    wanted = trajectory(scheduler, fake, start(), torch.Generator().manual_seed(3))
    step = partial(samplers.ddpm, variance=variance)
    images = ours(step, diffusion, fake, start(), torch.Generator().manual_seed(3), clip)
    assert_same(images, wanted)


def test_ddpm_trajectory_with_a_variance_head(in_double):
    def with_head(x, t):
        return torch.cat([fake(x, t), torch.sin(3 * x)], dim=1)

    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=60, beta_start=0.002, beta_end=0.2, variance_type="learned_range", clip_sample=True
    )
    scheduler.set_timesteps(60)
    wanted = trajectory(scheduler, with_head, start(), torch.Generator().manual_seed(3))
    diffusion = GaussianDiffusion(schedules.linear(60, 0.002, 0.2), learn_sigma=True)
    generator = torch.Generator().manual_seed(3)
    # the two clip the log variance of the last step apart, but no noise is added there
    assert_same(ours(samplers.ddpm, diffusion, with_head, start(), generator, clip=1.0), wanted)


@pytest.mark.parametrize("count", [50, 20])
def test_ddpm_trajectory_of_fewer_steps(count, in_double):
    """diffusers' "leading" timesteps, with our process at the same ones."""
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_small", clip_sample=True, **BETAS)
    scheduler.set_timesteps(count)
    chosen = sorted(scheduler.timesteps.tolist())
    diffusion = GaussianDiffusion(schedules.linear(1000)).subsequence(chosen)
    wanted = trajectory(scheduler, fake, start(), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    assert_same(
        ours(partial(samplers.ddpm, variance="posterior"), diffusion, fake, start(), generator, clip=1.0), wanted
    )


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_trajectory(spacing, clip, eta, in_double):
    scheduler = diffusers.DDIMScheduler(
        clip_sample=clip is not None, set_alpha_to_one=True, timestep_spacing=spacing, **BETAS
    )
    scheduler.set_timesteps(20 if spacing == "leading" else 1000)
    diffusion = GaussianDiffusion(schedules.linear(1000))
    if spacing == "leading":
        diffusion = diffusion.subsequence(sorted(scheduler.timesteps.tolist()))
    step = {"eta": eta, "use_clipped_model_output": clip is not None}  # we recompute the noise from a clipped image
    wanted = trajectory(scheduler, fake, start(), torch.Generator().manual_seed(3), **step)
    images = ours(partial(samplers.ddim, eta=eta), diffusion, fake, start(), torch.Generator().manual_seed(3), clip)
    assert_same(images, wanted)


def test_the_evenly_spread_timesteps_include_the_last():
    scheduler = diffusers.DDIMScheduler(timestep_spacing="linspace", **BETAS)
    scheduler.set_timesteps(250)
    assert sorted(scheduler.timesteps.tolist()) == schedules.spaced_timesteps(1000, 250)
