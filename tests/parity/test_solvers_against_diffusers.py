"""Our fast samplers, guidance and flows against diffusers, over whole trajectories."""

from functools import partial

import numpy as np
import pytest
import torch

from ditbook.diffusion import flow, guidance, samplers, schedules, solvers
from ditbook.diffusion.gaussian import GaussianDiffusion

diffusers = pytest.importorskip("diffusers")

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
PREDICTS = [("eps", "epsilon"), ("x_start", "sample"), ("v", "v_prediction")]


def smooth(x, t):
    """A model that depends on image and time, not linearly, and does not amplify rounding errors."""
    return 0.5 * torch.tanh(x) + 0.2 * x.flip(-1) + 0.3 * torch.cos(0.005 * t.to(x.dtype)).view(-1, 1, 1, 1)


def start(seed=0):
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def in_double(monkeypatch):
    """diffusers casts images to float32; while this is in use, that name means float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)


def same_levels(scheduler, process, twice=False):
    """Check the levels of a scheduler, and put ours in their place: it keeps them in float32."""
    levels = torch.cat([process.sigmas.flip(0), torch.zeros(1, dtype=torch.float64)])
    times = process.timesteps.flip(0).to(scheduler.timesteps.dtype)
    if twice:  # for both calls of the model in a step
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
        times = torch.cat([times[:1], times[1:].repeat_interleave(2)])
    torch.testing.assert_close(scheduler.sigmas.double(), levels, rtol=1e-4, atol=0)
    torch.testing.assert_close(scheduler.timesteps.double(), times.double(), rtol=1e-4, atol=1e-3)
    scheduler.sigmas, scheduler.timesteps = levels, times


def frames(step, process, x, generator=None):
    return [frame.x for frame in samplers.progressive(smooth, x, process, step=step, generator=generator)]


def assert_same(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("karras", [True, False])
@pytest.mark.parametrize(("predicts", "theirs"), PREDICTS)
@pytest.mark.parametrize("name", ["Euler", "Heun"])
def test_euler_and_heun(name, predicts, theirs, karras, in_double):
    if name == "Euler" and predicts == "x_start":
        pytest.skip("the Euler scheduler has no prediction of x₀")
    make = getattr(diffusers, f"{name}DiscreteScheduler")
    scheduler = make(prediction_type=theirs, timestep_spacing="leading", use_karras_sigmas=karras, **BETAS)
    scheduler.set_timesteps(20)
    whole = GaussianDiffusion(schedules.linear(1000), predicts=predicts)
    process = whole.subsequence(list(range(0, 1000, 50)))
    if karras:
        process = whole.at_sigmas(schedules.karras_sigmas(20, *process.sigmas[[0, -1]].tolist()))
    same_levels(scheduler, process, twice=name == "Heun")
    x, images = start() / process.scales(19)[0], []
    for t in scheduler.timesteps:
        x = scheduler.step(smooth(scheduler.scale_model_input(x, t), t.expand(2)), t, x).prev_sample
        images.append(x)
    ends = images if name == "Euler" else [*images[1::2], images[-1]]  # the scheduler's images are x/a
    ours = frames(solvers.euler if name == "Euler" else solvers.heun, process, start())
    assert_same(ours, [process.scales(18 - k)[0] * x for k, x in enumerate(ends)], 1e-10)


@pytest.mark.equation("12.8", of="ditbook.diffusion.solvers.dpm_solver", against="diffusers' scheduler of that name")
@pytest.mark.equation("12.9", of="ditbook.diffusion.solvers.dpm_solver", against="diffusers, sde-dpmsolver++")
@pytest.mark.parametrize(("predicts", "theirs"), PREDICTS)
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("count", [8, 25])
def test_dpm_solver(count, stochastic, predicts, theirs, in_double):
    algorithm = "sde-dpmsolver++" if stochastic else "dpmsolver++"
    make = diffusers.DPMSolverMultistepScheduler
    scheduler = make(algorithm_type=algorithm, solver_order=2, prediction_type=theirs, **BETAS)
    process = GaussianDiffusion(schedules.linear(1000), predicts=predicts).respace(count)
    scheduler.set_timesteps(timesteps=process.timesteps.flip(0).tolist())
    same_levels(scheduler, process)
    x, images, generator = start(), [], torch.Generator().manual_seed(3)
    for t in scheduler.timesteps:
        x = scheduler.step(smooth(x, t.expand(2)), t, x, generator=generator).prev_sample
        images.append(x)
    step = partial(solvers.dpm_solver, stochastic=stochastic)
    assert_same(frames(step, process, start(), torch.Generator().manual_seed(3)), images, 1e-10)


@pytest.mark.equation("12.10", of="ditbook.diffusion.solvers.unipc", against="diffusers' scheduler of that name")
@pytest.mark.parametrize(("predicts", "theirs"), PREDICTS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [5, 20])
def test_unipc(count, order, predicts, theirs, in_double):
    scheduler = diffusers.UniPCMultistepScheduler(solver_order=order, prediction_type=theirs, **BETAS)
    scheduler.set_timesteps(count)
    chosen = scheduler.timesteps.flip(0).tolist()
    process = GaussianDiffusion(schedules.linear(1000), predicts=predicts).subsequence(chosen)
    same_levels(scheduler, process)
    x, corrected = start(), []
    for t in scheduler.timesteps:
        x = scheduler.step(smooth(x, t.expand(2)), t, x).prev_sample
        corrected.append(scheduler.last_sample)
    ours = frames(partial(solvers.unipc, order=order), process, start())
    assert_same(ours, [*corrected[1:], x], 1e-10)  # theirs corrects an image when it comes back to it


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", ["Euler", "Heun"])
def test_flow_steps(name, shift, in_double):
    scheduler = getattr(diffusers, f"FlowMatch{name}DiscreteScheduler")(shift=shift)
    process = flow.Flow(flow.uniform_times(12), shift=shift)
    if name == "Euler":
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 12, 12))
        torch.testing.assert_close(scheduler.timesteps, process.timesteps.flip(0), rtol=1e-6, atol=0)
        scheduler.sigmas = torch.cat([process.times.flip(0), torch.zeros(1, dtype=torch.float64)])
        scheduler.timesteps = process.timesteps.flip(0)
    else:
        scheduler.sigma_max, scheduler.sigma_min = 1.0, 1 / 12
        scheduler.set_timesteps(12)
    x, theirs = start(), []
    for t in scheduler.timesteps:
        x = scheduler.step(smooth(x, t.expand(2)), t, x).prev_sample
        theirs.append(x)
    step = flow.euler if name == "Euler" else flow.heun
    assert_same(frames(step, process, start()), theirs if name == "Euler" else [*theirs[1::2], theirs[-1]], 1e-10)


@pytest.mark.parametrize("stochastic", [False, True])
def test_dpm_solver_on_a_flow(stochastic, in_double):
    algorithm = "sde-dpmsolver++" if stochastic else "dpmsolver++"
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "algorithm_type": algorithm}
    scheduler = diffusers.DPMSolverMultistepScheduler(**options)
    scheduler.set_timesteps(10)
    scheduler.sigmas = scheduler.sigmas.double()
    process = flow.Flow(scheduler.sigmas[:-1].flip(0))
    x, theirs, generator = start(), [], torch.Generator().manual_seed(3)
    for i, t in enumerate(scheduler.timesteps):
        time = process.timesteps[9 - i]  # theirs is cut to a whole number
        x = scheduler.step(smooth(x, time.expand(2)), t, x, generator=generator).prev_sample
        theirs.append(x)
    step = partial(solvers.dpm_solver, stochastic=stochastic)
    assert_same(frames(step, process, start(), torch.Generator().manual_seed(3)), theirs, 1e-10)


def test_flow_noise_and_shift():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    process = flow.Flow(flow.uniform_times(1000), shift=3.0)
    torch.testing.assert_close(process.times, scheduler.sigmas.flip(0).double(), rtol=1e-6, atol=0)
    t = scheduler.timesteps[[990, 400]]
    a, b = (torch.tensor([process.scales(k)[end] for k in (9, 599)]).view(-1, 1, 1, 1) for end in (0, 1))
    torch.testing.assert_close(
        a * start(0) + b * start(1), scheduler.scale_noise(start(0), t, start(1)), rtol=1e-6, atol=1e-6
    )


def test_zero_terminal_snr():
    theirs = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr(schedules.linear(1000))
    torch.testing.assert_close(schedules.zero_terminal_snr(schedules.linear(1000)), theirs, rtol=1e-10, atol=0)
    theirs = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr(schedules.cosine(1000))
    torch.testing.assert_close(schedules.zero_terminal_snr(schedules.cosine(1000)), theirs, rtol=1e-10, atol=0)


def test_sampling_from_zero_signal(in_double):
    """DDIM and ancestral steps from pure noise, against the scheduler that allows it."""
    for make, step, options in (
        (diffusers.DDIMScheduler, samplers.ddim, {}),
        (diffusers.DDPMScheduler, partial(samplers.ddpm, variance="posterior"), {"variance_type": "fixed_small"}),
    ):
        options = {"clip_sample": False, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True} | options
        scheduler = make(prediction_type="v_prediction", **options, **BETAS)
        scheduler.set_timesteps(20)
        process = GaussianDiffusion(schedules.zero_terminal_snr(schedules.linear(1000)), predicts="v")
        scheduler.alphas_cumprod = process.alpha_bar
        process = process.subsequence(scheduler.timesteps.flip(0).tolist())
        x, theirs, generator = start(), [], torch.Generator().manual_seed(3)
        for t in scheduler.timesteps:
            x = scheduler.step(smooth(x, t.expand(2)), t, x, generator=generator).prev_sample
            theirs.append(x)
        assert_same(frames(step, process, start(), torch.Generator().manual_seed(3)), theirs, 1e-9)


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_rescaled_guidance(rescale):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    def model(x, t, y):
        return smooth(x, t) + 0.4 * y.view(-1, 1, 1, 1) * x**2

    y, t = torch.tensor([1, 2]), torch.tensor([10, 600])
    without, with_label = model(start(), t, torch.zeros(2)), model(start(), t, y)
    wanted = rescale_noise_cfg(without + 5 * (with_label - without), with_label, rescale)
    guided = guidance.ClassifierFreeGuidance(model, 5.0, {"y": torch.tensor([0])}, rescale=rescale)
    torch.testing.assert_close(guided(start(), t, y=y), wanted)
