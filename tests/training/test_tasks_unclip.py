"""The tasks of unCLIP: what they train on, the loss, and how vectors and images are made."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook import data, pipeline, weights
from ditbook.data import captions, shapes
from ditbook.data.drawing import render
from ditbook.diffusion.flow import flow_loss
from ditbook.layers.directions import scaled
from ditbook.models.prior import AutoregressivePrior, AutoregressivePriorConfig, DiffusionPrior, DiffusionPriorConfig
from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig
from ditbook.models.unet import Upsampler, UpsamplerConfig
from ditbook.training import recipes
from ditbook.training.loop import Context
from ditbook.training.tasks import unclip
from ditbook.training.tasks.unclip import DecodeVectors, GuessVectors, WriteVectors
from ditbook.training.tasks.upsampling import UpsampleScenes

SIZES = {"joint": 64, "vocabulary": 29, "context": 14, "width": 24, "depth": 1, "heads": 2}
SHAPES = DecodeVectors(clip="clip-shapes", latents_of="autoencoder-shapes", layouts=60)


def context(seed=0):
    return Context(0, torch.Generator().manual_seed(seed))


def randomised(model, std=0.1):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval().requires_grad_(False)


def test_layouts_for_training_and_those_held_out_are_one_or_two_things_of_seen_pairs():
    train, held_out = unclip.sample_layouts(600), unclip.sample_layouts(600, held_out=True)
    assert len(train) + len(held_out) == 600
    assert not any(map(shapes.held_out, train))
    assert all(map(shapes.held_out, held_out))
    assert sorted({len(it.places) for it in train}) == [1, 2]
    assert {place for it in train for place in it.places} == set(unclip.PLACES)
    assert {(thing.colour, thing.shape) for it in train for thing in it.scene.things} <= set(shapes.SEEN_PAIRS)


def test_the_decoder_is_trained_on_latents_and_vectors_of_the_same_images():
    batch = SHAPES.data()
    layouts = unclip.sample_layouts(60)
    x = shapes.tensors(layouts)
    torch.testing.assert_close(batch["embedding"], weights.load("clip-shapes").encode_image(x), atol=1e-4, rtol=0)
    torch.testing.assert_close(batch["mean"], SHAPES.autoencoder.encode(x)[0], atol=1e-3, rtol=0)
    model = randomised(UnCLIPDecoder(UnCLIPDecoderConfig(width=24, depth=1, heads=2)))
    found, generator = SHAPES.loss(model, batch, context()), torch.Generator().manual_seed(0)
    latents = SHAPES.autoencoder.scaled_latents(batch["mean"], batch["std"], generator)
    process = pipeline.process(model, None, "straight")
    wanted = flow_loss(model, process, latents, generator, dropout=0.1, embedding=batch["embedding"])
    torch.testing.assert_close(found, wanted)


def test_a_decoder_starts_as_the_dit_without_a_class():
    task, dit = recipes.load("unclip-shapes").task, weights.load("dit-shapes-latent")
    model = weights.build("unclip-decoder", recipes.load("unclip-shapes").table["model"])
    nn.init.zeros_(model.extra.weight)
    task.start(model)
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])
    with torch.no_grad():
        for block in model.blocks:  # the vector's tokens may not be attended to
            block.attn.forward = alone(block.attn, model.config.extra)
        found = model(x, t, torch.randn(2, 64))
        torch.testing.assert_close(found, dit(x, t, torch.full((2,), 64)), rtol=1e-3, atol=1e-4)


def alone(attention, extra):
    """The attention of the image's tokens to one another."""
    forward = attention.forward

    def attend(x):
        return torch.cat([torch.zeros_like(x[:, :extra]), forward(x[:, extra:])], dim=1)

    return attend


@pytest.mark.equation(
    "14.5", of="ditbook.training.tasks.unclip.prior_loss", against="the error of the clean vector, written out"
)
def test_the_prior_predicts_the_clean_vector():
    task = GuessVectors(clip="clip-shapes", layouts=60)
    batch, model = task.data(), randomised(DiffusionPrior(DiffusionPriorConfig(**SIZES)))
    found, generator = unclip.prior_loss(model, batch, torch.Generator().manual_seed(0), 0.0), torch.Generator()
    generator.manual_seed(0)
    n = len(batch["image"])
    t = torch.randint(1000, (n,), generator=generator)
    eps = torch.randn(n, 64, generator=generator)
    angle = ((t + 1) / 1000 + 0.008) / 1.008 * torch.pi / 2
    alpha_bar = ((angle.cos() / torch.tensor(0.008 / 1.008 * torch.pi / 2).cos()) ** 2)[:, None]
    x_start = 8 * batch["image"]
    noisy = alpha_bar.sqrt() * x_start + (1 - alpha_bar).sqrt() * eps
    wanted = (model(noisy, t, batch["tokens"], batch["text"]) - x_start).square().mean()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)
    assert task.loss(model, batch, context()) == unclip.prior_loss(model, batch, context().generator, 0.1)


def test_captions_and_vectors_belong_together():
    layouts, model = unclip.sample_layouts(40), weights.load("clip-shapes")
    batch = unclip.embedded(layouts, model)
    words = captions.tokenizer("english")
    assert [words.decode(row).split("<")[0] for row in batch["tokens"].tolist()] == [
        captions.english(it.scene) for it in layouts
    ]
    similarity = batch["image"] @ batch["text"].T
    assert (similarity.argmax(dim=1) == torch.arange(len(layouts))).double().mean() > 0.8
    other = unclip.embedded(layouts, model, ["a small red star"] * len(layouts))
    assert torch.equal(other["image"], batch["image"])
    assert other["tokens"].shape[1] == 6


def test_the_codes_are_those_of_the_image_and_the_similarity_comes_first():
    task = WriteVectors(clip="clip-shapes", layouts=120)
    model = AutoregressivePrior(AutoregressivePriorConfig(**SIZES, components=8, values=16, dots=4))
    batch, plain = task.batches(model), task.data()
    assert torch.equal(batch["codes"][:, 1:], model.components.encode(plain["image"]))
    assert torch.equal(batch["codes"][:, 0], model.dot_tokens((plain["image"] * plain["text"]).sum(dim=1)))
    logits = model(plain["tokens"], plain["text"], batch["codes"][:, :-1])
    wanted = F.cross_entropy(logits.transpose(1, 2), batch["codes"][:, 1:])
    torch.testing.assert_close(task.loss(model, batch, context()), wanted)


class Clean:
    """A prior that knows the answer."""

    def __init__(self, answer):
        self.answer, self.config = answer, None

    def __call__(self, x, t, tokens, text):
        return scaled(self.answer)


def test_sampling_a_perfect_prior_gives_unit_vectors_of_images():
    batch = unclip.embedded(unclip.sample_layouts(20), weights.load("clip-shapes"))
    found = unclip.generate_vectors(
        Clean(batch["image"]), batch["tokens"], batch["text"], torch.Generator().manual_seed(0), steps=5
    )
    torch.testing.assert_close(found, batch["image"], atol=1e-4, rtol=0)


def test_the_similarity_asked_for_is_in_the_upper_half():
    model = randomised(AutoregressivePrior(AutoregressivePriorConfig(**SIZES, components=8, values=16, dots=4)))
    seen, decode = [], model.decode
    model.decode = lambda tokens, state: seen.append(tokens) or decode(tokens, state)
    batch = unclip.embedded(unclip.sample_layouts(40), weights.load("clip-shapes"))
    found = unclip.write_vectors(model, batch["tokens"], batch["text"], torch.Generator().manual_seed(0))
    assert set(seen[0].flatten().tolist()) == {18, 19}
    assert all(part.max() < 16 for part in seen[1:])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


def test_a_generator_gives_the_same_images_and_another_one_others():
    model, vectors = randomised(UnCLIPDecoder(UnCLIPDecoderConfig(width=24, depth=1, heads=2))), torch.randn(2, 64)
    coder, process = weights.load("autoencoder-shapes"), pipeline.process(model, None, "straight")
    one, same, other = (
        unclip.decode(model, process, coder, vectors, torch.Generator().manual_seed(seed), steps=3)
        for seed in (0, 0, 1)
    )
    assert one.shape == (2, 3, 32, 32)
    assert one.abs().max() <= 1
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_the_upsampler_of_scenes_is_trained_on_large_scenes_and_their_small_versions():
    task = UpsampleScenes(layouts=40, levels=300, predicts="x_start")
    batch, seen = task.data(), []
    assert batch["image"].shape[1:] == (64, 64, 3)
    assert torch.equal(batch["image"], torch.from_numpy(render(unclip.sample_layouts(40), 64)))
    config = UpsamplerConfig(size=64, channels=3, patch=8, low=32, width=16, multipliers=(1,))
    model = Upsampler(config)
    forward = model.forward
    model.forward = lambda x, t, low, level: seen.append((low, level)) or forward(x, t, low, level)
    loss = task.loss(model, {"image": batch["image"][:6]}, context())
    assert loss.requires_grad
    (low, level), small = seen[0], F.avg_pool2d(data.to_float(batch["image"][:6]), 2)
    assert level.max() < 300
    process = pipeline.process(model, "x_start", "cosine")
    error = (low - process.alpha_bar[level].sqrt().float().view(-1, 1, 1, 1) * small).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(error, (1 - process.alpha_bar[level]).float(), rtol=0.1, atol=0)
