"""RePaint against the scheduler of diffusers: the same order of steps, and the same images for the same noise."""

from functools import partial

import pytest
import torch

from ditbook.diffusion import editing, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

diffusers = pytest.importorskip("diffusers")

STEPS = 20  # of a process that is trained with as many: the scheduler goes up by single steps of training
BETAS = {"beta_start": 1e-3, "beta_end": 0.3, "beta_schedule": "linear"}


def process():
    return GaussianDiffusion(schedules.linear(STEPS, 1e-3, 0.3))


def smooth(x, t):
    return 0.5 * torch.tanh(x) + 0.3 * torch.cos(0.05 * t.to(x.dtype)).view(-1, 1, 1, 1)


def images(seed):
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def theirs(known, mask, jump, repetitions, model=smooth):
    scheduler = diffusers.RePaintScheduler(num_train_timesteps=STEPS, eta=0.0, clip_sample=False, **BETAS)
    scheduler.set_timesteps(STEPS, jump, repetitions)
    scheduler.betas, scheduler.alphas_cumprod = process().betas, process().alpha_bar  # which are float32 there
    generator, x, last = torch.Generator().manual_seed(7), images(0), STEPS
    for t in scheduler.timesteps.tolist():
        if t < last:
            output = model(x, torch.full((2,), t))
            # At its last index it draws noise that it then multiplies by 0, and ours draws none.
            x = scheduler.step(output, t, x, known, mask.double(), generator if t else torch.Generator()).prev_sample
        else:
            x = scheduler.undo_step(x, last, generator)
        last = t
    return x


def ours(known, mask, jump, repetitions, model=smooth):
    step = partial(
        editing.inpaint, known=known, mask=mask, step=samplers.ddim, jump=jump, repetitions=repetitions
    )  # with their eta of 0
    generator = torch.Generator().manual_seed(7)
    return samplers.sample(model, images(0), process(), step=step, generator=generator)


@pytest.mark.parametrize("repetitions", [1, 2, 4])
def test_the_same_images(repetitions):
    known, mask = images(1), torch.arange(4) < 2
    ends = [run(known, mask, 1, repetitions) for run in (ours, theirs)]
    unknown = ~mask.expand_as(known)
    torch.testing.assert_close(ends[0][unknown], ends[1][unknown], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("jump", "repetitions"), [(1, 3), (3, 2), (5, 4), (10, 10), (30, 3)])
def test_the_model_is_called_in_the_same_order(jump, repetitions):
    orders = []
    for run in (ours, theirs):
        order = []

        def model(x, t, order=order):
            order.append(int(t[0]))
            return 0 * x

        run(images(1), torch.arange(4) < 2, jump, repetitions, model)
        orders.append(order)
    assert orders[0] == orders[1]
    assert len(orders[0]) == editing.calls(STEPS, jump, repetitions)
