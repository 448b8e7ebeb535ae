"""A training step of every recipe, and samples of every generator, on devices whose numbers the host cannot read."""

import dataclasses

import pytest
import torch

from ditbook import pipeline, weights
from ditbook.training import recipes
from ditbook.training.loop import Stepper

DEVICES = [
    "meta",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]


@pytest.fixture
def no_waiting():
    """A GPU refuses every operation that would make the host wait; the device meta does so by itself."""
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("error")
    yield
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")


def step_of(name):
    recipe = recipes.load(name)
    small = {"layouts": 20} if hasattr(recipe.task, "layouts") else {}
    task = dataclasses.replace(recipe.task, **small)
    model = weights.build(recipe.table["family"], recipe.table["model"])
    data = task.batches(model)
    batch = data(torch.Generator().manual_seed(0)) if callable(data) else data
    batch = {name: tensor[:4] for name, tensor in batch.items()}
    return model, task, recipe.training, batch


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", recipes.names())
def test_a_training_step(name, device, few, request):
    model, task, training, batch = step_of(name)
    stepper = Stepper(model.to(device), task.loss, training, task.after_step)
    stepper.step(batch)  # a GPU's first step sets up what later ones use
    request.getfixturevalue("no_waiting")
    stepper.step(batch)
    assert stepper.count == 2
    gradients = [parameter.grad for parameter in stepper.model.parameters() if parameter.grad is not None]
    assert len(gradients) > 0.9 * len(list(stepper.model.parameters()))  # dvae's codebook has none at first
    assert all(gradient.device.type == device for gradient in gradients)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", pipeline.names())
def test_samples(name, device):
    generator = pipeline.load(name, device)
    ask = {"labels": [3, None], "guidance_scale": 2.0} if generator.labels else {"count": 2}
    images = generator.sample(**ask, steps=2)
    assert images.device.type == device
    sizes = {"shapes": (3, 32, 32), "28": (1, 28, 28), "faces-8": (3, 8, 8), "faces": (3, 32, 32), "photo": (3, 32, 32)}
    assert images.shape == (2, *next((size for part, size in sizes.items() if part in name), (1, 8, 8)))
