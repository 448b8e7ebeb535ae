import math

import pytest
import torch

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
    "15.1", of="ditbook.models.autoencoder.AutoencoderConfig.factor", against="numbers counted before and after"
)
def test_how_much_smaller_a_latent_is():
    model, x = Autoencoder(CONFIG), torch.zeros(1, 3, 8, 12)
    compression = x.numel() / model.encode(x)[0].numel()
    assert compression == CONFIG.channels * CONFIG.factor**2 / CONFIG.latent_channels


def test_the_variance_has_limits():
    model = Autoencoder(CONFIG)
    torch.nn.init.zeros_(model.moments.weight)
    for log_var, limit in ((99.0, 20.0), (-99.0, -30.0)):
        model.moments.bias.data[4:] = log_var
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


def test_wrong_input_is_refused():
    model = Autoencoder(CONFIG)
    for shape in ((1, 4, 8, 8), (1, 3, 7, 8), (1, 3, 8, 9), (3, 8, 8)):
        with pytest.raises(ValueError, match="both sides divisible by 2"):
            model.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match="divisible by the 5 groups"):
        AutoencoderConfig(widths=(8,), groups=5)
