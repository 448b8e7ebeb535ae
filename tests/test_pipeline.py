from pathlib import Path

import numpy as np
import pytest
import torch

from ditbook import data, pipeline, weights
from ditbook.data import shapes
from ditbook.diffusion import flow, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.training.tasks.scenes import accuracy_of_samples
from ditbook.weights import checkpoint


def noise(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_samples_are_those_of_the_sampler_with_guidance():
    model, y = weights.load("dit-digits"), torch.tensor([3, 7, 10])
    process = GaussianDiffusion(schedules.linear(), learn_sigma=True).respace(5)
    guided = ClassifierFreeGuidance(model, 2.5, null={"y": torch.tensor(10)})
    wanted = samplers.sample(guided, noise(3, 1, 8, 8, seed=4), process, clip=1.0, y=y)
    images = pipeline.load("dit-digits").sample(["3", 7, None], guidance_scale=2.5, steps=5, seed=4)
    torch.testing.assert_close(images, wanted)
    assert images.abs().max() <= 1


def test_without_guidance_the_model_alone_is_called():
    images = pipeline.load("dit-digits").sample([3], steps=5)
    process = GaussianDiffusion(schedules.linear(), learn_sigma=True).respace(5)
    wanted = samplers.sample(weights.load("dit-digits"), noise(1, 1, 8, 8), process, clip=1.0, y=torch.tensor([3]))
    assert torch.equal(images, wanted)


def test_without_classes_a_count_is_enough():
    images = pipeline.load("unet-digits").sample(count=2, steps=5)
    process = GaussianDiffusion(schedules.linear()).respace(5)
    assert torch.equal(images, samplers.sample(weights.load("unet-digits"), noise(2, 1, 8, 8), process, clip=1.0))


class Always(torch.nn.Module):
    """A model that predicts the same clean latent for every input."""

    def __init__(self, x_start):
        super().__init__()
        self.x_start = torch.nn.Parameter(x_start)
        self.config = weights.load("dit-shapes-latent").config

    def forward(self, x, t, y):
        return self.x_start.expand(len(x), -1, -1, -1)

    def null_condition(self, y):
        return {"y": torch.full_like(y, 64)}


def test_latents_are_decoded_unclipped_at_their_own_size():
    coder, latent = weights.load("autoencoder-shapes"), torch.full((1, 4, 8, 8), 1.6)
    diffusion = GaussianDiffusion(schedules.linear(), predicts="x_start")
    always = pipeline.Pipeline(Always(coder.config.scale * latent), diffusion, pipeline.SHAPES, coder)
    images = always.sample(list(range(64)) * 2, guidance_scale=2.0, steps=5)  # more than one slice of the decoder
    with torch.no_grad():
        torch.testing.assert_close(images, coder.decode(latent).clamp(-1, 1).expand(128, -1, -1, -1))


def test_a_name_gives_images_of_its_labels():
    labels = ["red circle", "blue star", "white moon", "green square"] * 4
    images = pipeline.load("dit-shapes-latent").sample(labels=labels, guidance_scale=3.0, steps=50, seed=0)
    assert images.shape == (16, 3, 32, 32)
    numbers = [shapes.PAIRS.index(tuple(label.split())) for label in labels]
    assert accuracy_of_samples(images, numbers) > 0.5 > 0.1 > accuracy_of_samples(images, numbers[1:] + numbers[:1])


def test_the_model_in_pixels_predicts_the_clean_image():
    images = pipeline.load("dit-shapes-pixel").sample(["red circle"] * 8, guidance_scale=2.0, steps=25)
    real = data.tensors(shapes.load("validation", 50, things=1))["image"]
    assert images.shape == (8, 3, 32, 32)
    assert abs(images.mean() - real.mean()) < 0.3 * real.std()
    assert accuracy_of_samples(images, [0] * 8) > 0.5


def test_the_seed_decides():
    generator = pipeline.load("dit-digits")
    first, same, other = (generator.sample([1, 2], steps=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_global_state_of_chance_is_left_alone():
    generator, before = pipeline.load("dit-digits"), torch.get_rng_state()
    generator.sample([1], steps=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_whole_numbers_of_numpy():
    digits, unet = pipeline.load("dit-digits"), pipeline.load("unet-digits")
    for whole in (np.int64, np.int32):
        assert torch.equal(digits.sample([whole(3), 7], steps=whole(3)), digits.sample([3, 7], steps=3))
        assert torch.equal(unet.sample(count=whole(2), steps=2), unet.sample(count=2, steps=2))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dit-digits", {"labels": ["cat"]}, r"no label 'cat'; there are 0, 1, .*9 \(or their numbers, 0 to 9\)"),
        ("dit-digits", {"labels": [10]}, "no label 10; there are"),
        ("dit-digits", {"labels": [-1]}, "no label -1; there are"),
        ("dit-digits", {"labels": [True]}, "no label True; there are"),
        ("dit-digits", {"labels": [3.0]}, "no label 3.0; there are"),
        ("dit-digits", {"labels": "3"}, "labels must be a list with one label for each image"),
        ("dit-digits", {"labels": []}, "labels must be a list"),
        ("dit-digits", {}, "labels must be a list"),
        ("dit-digits", {"labels": [3], "count": 1}, "labels must be a list"),
        ("dit-digits", {"labels": [3], "guidance_scale": -1.0}, "guidance_scale must be 0 or more, and finite, got -1"),
        ("dit-digits", {"labels": [3], "guidance_scale": float("nan")}, "guidance_scale must be"),
        ("dit-digits", {"labels": [3], "guidance_scale": float("inf")}, "guidance_scale must be"),
        ("dit-digits", {"labels": [3], "steps": 1}, "steps must be a whole number, 2 to 1000, got 1"),
        ("dit-digits", {"labels": [3], "steps": 2.5}, "steps must be a whole number, 2 to 1000, got 2.5"),
        ("dit-digits", {"labels": [3], "steps": True}, "steps must be a whole number, 2 to 1000, got True"),
        ("dit-digits", {"labels": [3], "steps": "50"}, "steps must be a whole number, 2 to 1000, got '50'"),
        ("dit-digits", {"labels": [np.float64(3)]}, r"no label np.float64\(3.0\)"),
        ("unet-digits", {"count": 2.0}, "count must be a positive number of images, got 2.0"),
        ("unet-digits", {"count": True}, "count must be a positive number of images, got True"),
        ("dit-digits", {"labels": [3], "steps": 1001}, "steps must be a whole number, 2 to 1000, got 1001"),
        ("dit-shapes-latent", {"labels": ["circle red"]}, "no label 'circle red'; there are red circle, red square"),
        ("unet-digits", {"labels": [3]}, "this model has no classes: pass count, and neither"),
        ("unet-digits", {"count": 2, "guidance_scale": 2.0}, "this model has no classes"),
        ("unet-digits", {}, "count must be a positive number of images, got None"),
        ("unet-digits", {"count": 0}, "count must be a positive number of images, got 0"),
    ],
)
def test_bad_input_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.load(name).sample(**arguments)


def test_names_that_generate_no_images_are_refused():
    with pytest.raises(ValueError, match=r"clip-shapes does not generate images; those that do are dit-digits, .*unet"):
        pipeline.load("clip-shapes")
    with pytest.raises(ValueError, match="no weights named 'dit-cats'; there are"):
        pipeline.load("dit-cats")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dit-digits", {"task": None}, "does not generate images"),
        ("dit-digits", {"task": ["digits"]}, "does not generate images"),
        ("dit-digits", {"schedule": None}, "has metadata that do not fit: no schedule None; there are linear"),
        ("dit-digits", {"schedule": ["linear"]}, r"no schedule \['linear'\]"),
        ("dit-digits", {"predicts": "noise"}, "has metadata that do not fit: parameterization 'noise' is unknown"),
        ("dit-digits", {"predicts": ["v"]}, r"parameterization \['v'\] is unknown"),
        ("dit-digits", {"schedule": "straight"}, "has metadata that do not fit: straight paths have no variance"),
        ("dit-digits", {"latents_of": 3}, "has latents_of 3 in its metadata; it must be the name of weights"),
        ("dit-digits", {"latents_of": "vae"}, "has metadata that do not fit: no weights named 'vae'"),
        ("dit-digits", {"latents_of": "vae.safetensors"}, "do not fit: no weight file at vae"),
        ("dit-digits", {"latents_of": "unet-digits"}, "has latents of unet-digits, which is a UNet"),
        ("dit-digits", {"latents_of": "autoencoder-shapes"}, "makes 1 channels, and autoencoder-shapes decodes"),
        ("dit-digits", {"task": "scenes"}, "has 10 classes, and the task 'scenes' has 64"),
        ("dit-digits", {"task": "faces"}, "has 10 classes, and the task 'faces' has 0"),
        ("dit-digits", {"family": "gan"}, "does not hold the model that its metadata names: no family"),
        ("upsampler-faces-16", {"task": "faces"}, "is a Upsampler, of the task 'faces'; that takes a DiT or a UNet"),
        ("scene-reader", {"task": "scenes"}, "is a SceneReader, of the task 'scenes'; that takes a DiT or a UNet"),
    ],
)
def test_metadata_that_do_not_fit_name_the_file(name, change, message, tmp_path):
    path = tmp_path / "w.safetensors"
    tensors, about = checkpoint.load(Path(weights.__file__).parent / f"{name}.safetensors")
    checkpoint.save(path, tensors, {key: value for key, value in (about | change).items() if value is not None})
    with pytest.raises(ValueError, match=rf"w\.safetensors.* {message}"):
        pipeline.load(str(path))


def test_a_task_names_no_more_classes_than_the_model_has(monkeypatch):
    monkeypatch.setitem(pipeline.LABELS, "digits", pipeline.DIGITS[:9])
    assert pipeline.load("dit-digits").labels == pipeline.DIGITS[:9]
    monkeypatch.setitem(pipeline.LABELS, "digits", (*pipeline.DIGITS, "10"))
    with pytest.raises(ValueError, match="dit-digits has 10 classes, and the task 'digits' has 11"):
        pipeline.load("dit-digits")


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="no schedule 'square'; there are linear, scaled_linear, cosine, straight"):
        pipeline.process(weights.load("dit-digits"), schedule="square")


def test_straight_paths_are_followed_by_eulers_steps():
    model = weights.load("unet-digits")
    process = pipeline.process(model, schedule="straight")
    assert (process.num_steps, process.predicts) == (1000, "v")
    images = pipeline.Pipeline(model, process).sample(count=2, steps=5)
    few = flow.Flow(flow.uniform_times(5))
    wanted = samplers.sample(model, noise(2, 1, 8, 8), few, step=flow.euler, clip=1.0)
    torch.testing.assert_close(images, wanted.clamp(-1, 1), rtol=1e-4, atol=1e-4)
    assert pipeline.process(model, "x_start", "straight").predicts == "x_start"
    with pytest.raises(ValueError, match="straight paths have no variance"):
        pipeline.process(weights.load("dit-digits"), schedule="straight")
