"""Timesteps, noise and labels of a wrong shape: a ValueError that names the shapes, and nothing is broadcast."""

from functools import partial

import pytest
import torch

from ditbook.diffusion import bound, editing, flow, guidance, linear, losses, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.process import Prediction

GAUSSIAN = GaussianDiffusion(schedules.linear(20))
FLOW = flow.Flow(flow.uniform_times(20))
X, T = torch.zeros(4, 3, 2, 2), torch.arange(4)
ONE = torch.zeros(1, 3, 2, 2)
WRONG_T = [torch.tensor(3), T[:1], T[:3], T[:, None], T[None], T.view(4, 1, 1, 1)]
WRONG_X = [torch.tensor(0.0), ONE, X[:, :1], X[0], X[:3], X[:, :, :1]]


def seeded():
    return torch.Generator().manual_seed(0)


def zeros(x, t, **condition):
    return torch.zeros_like(x)


def of_both(calls):
    """Calls of the Gaussian process and of the flow."""
    processes = {"gaussian": GAUSSIAN, "flow": FLOW}
    return {f"{name} {kind}": partial(call, p) for kind, p in processes.items() for name, call in calls.items()}


OF_TIMESTEPS = {
    **of_both(
        {
            "add_noise": lambda p, t: p.add_noise(X, t, X),
            "targets": lambda p, t: p.targets(X, X, t),
            "predict": lambda p, t: p.predict(X, X, t),
            "coefficient": lambda p, t: p.coefficient("clock", t, X),
        }
    ),
    "posterior": lambda t: GAUSSIAN.posterior(X, X, t),
    "sigmas_of": lambda t: GAUSSIAN.sigmas_of(t, X),
    "reverse_log_variance": lambda t: GAUSSIAN.reverse_log_variance(Prediction(X, X, X), X, t),
    "bound_terms": lambda t: bound.bound_terms(GAUSSIAN, X, X, X, X, t),
    "simple_loss": lambda t: losses.simple_loss(zeros, GAUSSIAN, X, t, X),
    "bound_loss": lambda t: losses.bound_loss(zeros, GAUSSIAN, X, t, X),
    "augmented": lambda t: editing.augmented(X, t, GAUSSIAN, seeded()),
    "flow_loss": lambda t: flow.flow_loss(zeros, FLOW, X, seeded(), times=lambda *_: t.float()),
    "WienerFilter": lambda t: linear.WienerFilter(torch.zeros(12), torch.eye(12), GAUSSIAN)(X, t),
    "ClassifierFreeGuidance": lambda t: guidance.ClassifierFreeGuidance(zeros, 2.0, null={})(X, t),
    "guidance scales": lambda t: guidance.ClassifierFreeGuidance(zeros, lambda _: t.float(), null={})(X, T),
    "Autoguidance": lambda t: guidance.Autoguidance(zeros, zeros, lambda _: t.float())(X, T),
    "ClassifierGuidance": lambda y: guidance.ClassifierGuidance(zeros, lambda x, t: x.flatten(1), GAUSSIAN, 1.0)(
        X, T, y
    ),
}
OF_IMAGES = {
    **of_both(
        {
            "add_noise": lambda p, x: p.add_noise(X, T, x),
            "add_noise to": lambda p, x: p.add_noise(x, T, X),
            "targets": lambda p, x: p.targets(X, x, T),
            "predict": lambda p, x: p.convert(x, X, T, "x_start"),
        }
    ),
    "posterior": lambda x: GAUSSIAN.posterior(x, X, T),
    "bound_terms predicted": lambda x: bound.bound_terms(GAUSSIAN, x, X, X, X, T),
    "bound_terms x_start": lambda x: bound.bound_terms(GAUSSIAN, X, X, x, X, T),
    "simple_loss": lambda x: losses.simple_loss(zeros, GAUSSIAN, X, T, x),
    "simple_loss of the model": lambda x: losses.simple_loss(lambda *_: x, GAUSSIAN, X, T, X),
    "hybrid_loss": lambda x: losses.hybrid_loss(
        lambda x, t: torch.cat([x, x], 1), GaussianDiffusion(GAUSSIAN.betas, learn_sigma=True), X, T, x
    ),
    "flow_loss": lambda x: flow.flow_loss(lambda *_: x, FLOW, X, seeded()),
    "sample": lambda x: samplers.sample(lambda *_: x, X, GAUSSIAN),
}
CASES = {
    **{f"timesteps or labels of {name}": (call, T, WRONG_T) for name, call in OF_TIMESTEPS.items()},
    **{f"images of {name}": (call, X, WRONG_X) for name, call in OF_IMAGES.items()},
}


@pytest.mark.parametrize(("call", "right", "wrong"), CASES.values(), ids=CASES)
def test_what_is_not_one_for_each_image_is_refused_and_not_broadcast(call, right, wrong):
    call(right)
    for value in wrong:
        with pytest.raises(ValueError, match="shape") as error:  # noqa: PT012
            call(value)
            pytest.fail(f"takes {tuple(value.shape)}")
        assert str(tuple(value.shape)) in str(error.value)


def test_log_variances():
    bound.bound_terms(GAUSSIAN, X, X[:, :1, :1, :1], X, X, T)  # fixed beforehand
    for wrong in (X[:3], X[0], ONE, torch.zeros(4), torch.zeros(4, 3, 2, 4)):
        with pytest.raises(ValueError, match="log variance"):
            bound.bound_terms(GAUSSIAN, X, wrong, X, X, T)


def test_timesteps_that_the_process_lacks():
    for process in (GAUSSIAN, FLOW):
        for wrong in (torch.tensor([-1]), torch.tensor([20])):
            with pytest.raises(ValueError, match="timestep out of range"):
                process.training_timesteps(wrong)
        for wrong in (torch.tensor(3), T[:, None], T.float(), T.to(torch.uint8), T > 1):  # the last two are masks
            with pytest.raises(ValueError, match=r"timesteps of shape .* and type .*; expected int64 or int32, \(B,\)"):
                process.training_timesteps(wrong)
            with pytest.raises(ValueError, match=r"timesteps of shape"):
                process.add_noise(X, wrong, X)
        assert process.training_timesteps(T.int()).tolist() == process.training_timesteps(T).tolist()


def test_what_inpainting_knows_may_be_broadcast_but_not_larger():
    mask = torch.ones(2, 2, dtype=torch.bool)
    run = samplers.Run(zeros, GAUSSIAN, {}, None, seeded())
    for known in (X, ONE, X[0], torch.tensor(0.0)):
        assert editing.inpaint(X, 3, run, known=known, mask=mask, repetitions=1).shape == X.shape
    for known, wrong in ((X[:3], mask), (X[None], mask), (X, mask.expand(5, 1, 2, 2)), (X, torch.ones(3, 1) > 0)):
        with pytest.raises(ValueError, match=r"of shape .* cannot be broadcast to \(4, 3, 2, 2\)"):
            editing.inpaint(X, 3, run, known=known, mask=wrong)


def test_conditions():
    y = {"y": T, "mask": torch.ones(4, 2)}
    null = {"y": torch.tensor(9), "mask": torch.zeros(2)}
    assert guidance.drop_condition(y, null, 1.0, seeded())["y"].tolist() == [9] * 4
    with pytest.raises(ValueError, match=r"condition 'mask' of shape \(1, 2\) for 4 samples"):
        guidance.drop_condition(y | {"mask": torch.ones(1, 2)}, null, 0.5, seeded())
    for wrong in (torch.zeros(5, dtype=torch.int64), T[:, None]):
        for call in (
            lambda null: guidance.drop_condition({"y": T}, null, 0.5, seeded()),
            lambda null: guidance.ClassifierFreeGuidance(zeros, 2.0, null)(X, T, y=T),
        ):
            with pytest.raises(ValueError, match=r"null condition 'y' of shape .* cannot be broadcast to \(4,\)"):
                call({"y": wrong})


def test_losses_of_important_timesteps():
    sampler = bound.ImportantTimesteps(20, torch.device("cpu"))
    for wrong in (torch.ones(1), torch.ones(4, 1)):
        with pytest.raises(ValueError, match=r"losses .* and timesteps .* differ in shape"):
            sampler.update(T, wrong)
