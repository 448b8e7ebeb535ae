"""The autoencoder against diffusers' AutoencoderKL on the same random weights."""

import torch
from diffusers import AutoencoderKL
from torch import nn

from ditbook.convert.autoencoder import to_diffusers
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig

CONFIG = AutoencoderConfig(latent_channels=4, widths=(16, 24, 32), blocks=1, groups=8, scale=1.0)


def make(seed=0):
    torch.manual_seed(seed)
    model = Autoencoder(CONFIG).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def twin(model):
    kinds = len(CONFIG.widths)
    other = AutoencoderKL(
        block_out_channels=CONFIG.widths,
        down_block_types=("DownEncoderBlock2D",) * kinds,
        up_block_types=("UpDecoderBlock2D",) * kinds,
        layers_per_block=CONFIG.blocks,
        latent_channels=CONFIG.latent_channels,
        norm_num_groups=CONFIG.groups,
    ).double()
    other.load_state_dict(to_diffusers(model))
    return other


def test_both_halves_and_their_gradients():
    model, x = make(), torch.randn(2, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = twin(model)
    mean, std = model.encode(x)
    theirs = other.encode(x).latent_dist
    torch.testing.assert_close(mean, theirs.mean)
    torch.testing.assert_close(std, theirs.std)
    decoded, wanted = model.decode(mean), other.decode(theirs.mean).sample
    assert mean.shape == (2, 4, 4, 6)
    assert decoded.shape == x.shape
    torch.testing.assert_close(decoded, wanted)
    (decoded.square().mean() + std.sum()).backward()
    (wanted.square().mean() + theirs.std.sum()).backward()
    grads = Autoencoder(CONFIG).double()
    for parameter, source in zip(grads.parameters(), model.parameters(), strict=True):
        parameter.data = source.grad
    expected = {name: parameter.grad for name, parameter in other.named_parameters()}
    for name, value in to_diffusers(grads).items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")
