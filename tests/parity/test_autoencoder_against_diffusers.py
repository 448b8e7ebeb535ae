"""The autoencoder against diffusers' AutoencoderKL on the same random weights."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from ditbook.convert.autoencoder import load_diffusers, to_diffusers
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
    painted, wanted = model.decode(mean), other.decode(theirs.mean).sample
    assert mean.shape == (2, 4, 4, 6)
    assert painted.shape == x.shape
    torch.testing.assert_close(painted, wanted)
    (painted.square().mean() + std.sum()).backward()
    (wanted.square().mean() + theirs.std.sum()).backward()
    grads = Autoencoder(CONFIG).double()
    for parameter, source in zip(grads.parameters(), model.parameters(), strict=True):
        parameter.data = source.grad
    expected = {name: parameter.grad for name, parameter in other.named_parameters()}
    for name, value in to_diffusers(grads).items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("older", [False, True])
def test_the_layout_loads(older):
    model, other = make(), make(seed=5)
    state = to_diffusers(model)
    if older:
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for new, old in names.items():
            state = {key.replace(f"attentions.0.{new}", f"attentions.0.{old}"): v for key, v in state.items()}
        assert "encoder.mid_block.attentions.0.query.weight" in state
    load_diffusers(other, state)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, check_dtype=False, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("quant_conv.bias"), "key 'quant_conv.bias' is missing"),
        (lambda state: state.update(other=torch.zeros(1)), "key 'other' is unexpected"),
        (lambda state: state.update({"encoder.conv_in.bias": torch.zeros(3)}), "'encoder.conv_in.bias' has shape"),
    ],
)
def test_other_files_are_refused(change, message):
    state = to_diffusers(make())
    change(state)
    with pytest.raises(ValueError, match=message):
        load_diffusers(make(seed=5), state)


def test_stable_diffusion_s_has_84_million_parameters():
    with torch.device("meta"):
        count = sum(p.numel() for p in Autoencoder(AutoencoderConfig()).parameters())
    assert count == 83_653_863
