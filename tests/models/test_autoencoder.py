import math

import pytest
import torch

from ditbook import data, weights
from ditbook.data import shapes
from ditbook.models import autoencoder
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig

CONFIG = AutoencoderConfig(widths=(8, 16), blocks=1, groups=4)


def moments():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64)
    return mean, torch.rand(5, 4, 3, 3, generator=generator, dtype=torch.float64) + 0.1


def test_shapes():
    model = Autoencoder(CONFIG)
    mean, std = model.encode(torch.zeros(2, 3, 8, 12))
    assert CONFIG.factor == 2
    assert mean.shape == std.shape == (2, 4, 4, 6)
    assert (std > 0).all()
    assert model.decode(mean).shape == (2, 3, 8, 12)
    assert AutoencoderConfig().factor == 8
    assert AutoencoderConfig(widths=[32, 64]).widths == (32, 64)  # as a recipe gives them


@pytest.mark.equation(
    "15.1", of="ditbook.models.autoencoder.AutoencoderConfig.compression", against="numbers counted before and after"
)
def test_how_much_smaller_a_latent_is():
    model, x = Autoencoder(CONFIG), torch.zeros(1, 3, 8, 12)
    assert CONFIG.compression == x.numel() / model.encode(x)[0].numel()


def test_a_patch_is_one_position_whose_pixels_are_channels():
    config = AutoencoderConfig(**{**vars(CONFIG), "patch": 2})
    assert config.factor == 4
    model, x = Autoencoder(config), torch.randn(2, 3, 8, 12)
    assert config.compression == x.numel() / model.encode(x)[0].numel()
    assert model.decode(model.encode(x)[0]).shape == x.shape
    seen = []
    model.encoder.conv_in.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.encode(x)
    assert torch.equal(seen[0][1, :, 2, 3].sort().values, x[1, :, 4:6, 6:8].flatten().sort().values)
    model.decoder.conv_out = torch.nn.Identity()  # what its map says of a position becomes that square
    model.decoder.levels = torch.nn.Identity()
    model.decoder.middle = torch.nn.Identity()
    model.decoder.conv_in = model.decoder.norm_out = torch.nn.Identity()
    h = torch.arange(12.0).view(1, 12, 1, 1).expand(1, 12, 3, 4)
    assert torch.equal(model.decoder(h)[0, :, 2:4, 4:6], torch.nn.functional.silu(torch.arange(12.0)).view(3, 2, 2))


def test_the_variance_has_limits():
    model = Autoencoder(CONFIG)
    torch.nn.init.zeros_(model.quant_conv.weight)
    for log_var, limit in ((99.0, 20.0), (-99.0, -30.0)):
        model.quant_conv.bias.data[4:] = log_var
        assert model.encode(torch.zeros(1, 3, 8, 8))[1].log().max().item() == pytest.approx(limit / 2)


@pytest.mark.equation("15.2", of="ditbook.models.autoencoder.sample_latent", against="mean and spread of many draws")
def test_latents_have_the_mean_and_spread_asked_for():
    mean, std = torch.full((1, 1, 300, 300), 2.0), torch.full((1, 1, 300, 300), 0.5)
    z = autoencoder.sample_latent(mean, std, torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(2, abs=0.01)
    assert z.std().item() == pytest.approx(0.5, abs=0.01)
    again = autoencoder.sample_latent(mean, std, torch.Generator().manual_seed(0))
    assert torch.equal(z, again)


@pytest.mark.equation(
    "15.5",
    of="ditbook.models.autoencoder.latent_scale",
    against="the spread of drawn latents, and Stable Diffusion's number",
)
def test_the_scale_makes_latents_of_unit_spread():
    mean, std = (value.repeat(400, 1, 1, 1) for value in moments())
    scale = autoencoder.latent_scale(mean, std)
    drawn = scale * autoencoder.sample_latent(mean, std, torch.Generator().manual_seed(0))
    assert drawn.std().item() == pytest.approx(1, abs=0.01)
    wide = autoencoder.latent_scale(torch.zeros(2, 4, 3, 3), torch.full((2, 4, 3, 3), 1 / 0.18215))
    assert wide == pytest.approx(0.18215)
    assert math.isfinite(scale)


@pytest.mark.equation(
    "15.6", of="ditbook.models.autoencoder.Autoencoder.to_latents", against="samples of one image at a time, scaled"
)
def test_latents_for_diffusion_are_samples_times_the_scale(monkeypatch):
    monkeypatch.setattr(autoencoder, "SLICE", 2)
    model, x = Autoencoder(CONFIG), torch.rand(5, 3, 8, 8)
    mean, std = (torch.cat(part) for part in zip(*(model.encode(image[None]) for image in x), strict=True))
    torch.testing.assert_close(model.to_latents(x), 0.18215 * mean)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    z = model.to_latents(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z, 0.18215 * (mean + std * noise))
    torch.testing.assert_close(model.scaled_latents(mean, std, torch.Generator().manual_seed(0)), z)


@pytest.mark.equation(
    "15.7",
    of="ditbook.models.autoencoder.Autoencoder.from_latents",
    against="one latent at a time, divided by the scale",
)
def test_images_of_the_latents_of_diffusion(monkeypatch):
    monkeypatch.setattr(autoencoder, "SLICE", 2)
    model, z = Autoencoder(CONFIG), torch.randn(5, 4, 4, 4)
    wanted = torch.cat([model.decode(latent[None] / 0.18215) for latent in z])
    torch.testing.assert_close(model.from_latents(z), wanted)
    assert model.from_latents(z[:0]).shape == (0, 3, 8, 8)


def test_trained_latents_have_unit_spread_and_come_back_as_their_images():
    model, x = weights.load("autoencoder-shapes"), data.tensors(shapes.load("validation", 120))["image"]
    z = model.to_latents(x, torch.Generator().manual_seed(0))
    assert z.std().item() == pytest.approx(1, abs=0.05)
    assert (model.from_latents(z) - x).abs().mean() < 0.1


def test_wrong_input_is_refused():
    model = Autoencoder(CONFIG)
    for shape in ((1, 4, 8, 8), (1, 3, 7, 8), (1, 3, 8, 9), (3, 8, 8)):
        with pytest.raises(ValueError, match="both sides divisible by 2"):
            model.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"images of type torch.uint8"):
        model.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"latents of shape \(1, 3, 4, 4\); this model takes \(batch, 4, h, w\)"):
        model.decode(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 5}, "widths: 8 is not divisible by groups 5"),
        ({"widths": ()}, r"widths \(\) must hold a number for each level, one level at least"),
        ({"widths": (8, 0)}, r"widths \(8, 0\) must hold .* of at least 1 each"),
        ({"patch": 0}, "patch 0 must be at least 1"),
        ({"blocks": 0}, "blocks 0 must be at least 1"),
        ({"scale": 0.0}, "scale 0.0 must be above 0"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderConfig(**{**vars(CONFIG), **change})


def test_stable_diffusion_s_has_84_million_parameters():
    with torch.device("meta"):
        count = sum(p.numel() for p in Autoencoder(AutoencoderConfig()).parameters())
    assert count == 83_653_863
