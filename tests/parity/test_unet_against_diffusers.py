"""Our U-Net against diffusers' UNet2DModel with the same weights and the same 256 frequencies of time."""

import pytest
import torch
import torch.nn.functional as F

from ditbook.convert.unet import load_diffusers, to_diffusers
from ditbook.models.unet import UNet, UNetConfig, Upsampler, UpsamplerConfig

diffusers = pytest.importorskip("diffusers")


def randomized(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # the last convolution starts at zero
    return model.eval()


def theirs_for(config, images, **options):
    levels = len(config.multipliers)
    model = diffusers.UNet2DModel(
        sample_size=config.size,
        in_channels=images * config.channels,
        out_channels=config.channels,
        block_out_channels=[config.width * m for m in config.multipliers],
        layers_per_block=config.blocks,
        down_block_types=["DownBlock2D"] * levels,
        up_block_types=["UpBlock2D"] * levels,
        attention_head_dim=config.width * config.multipliers[-1] // config.heads,
        norm_num_groups=8,
        **options,
    ).eval()
    model.time_proj = diffusers.models.embeddings.Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    model.time_embedding = diffusers.models.embeddings.TimestepEmbedding(256, 4 * config.width)
    return model


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(size=16, channels=3, width=16, multipliers=(1, 2, 3), blocks=2, heads=2),
    ],
)
def test_same_weights_same_output(config):
    torch.manual_seed(0)
    ours, theirs = randomized(UNet(config)), theirs_for(config, images=1)
    theirs.load_state_dict(to_diffusers(ours), strict=True)
    x = torch.randn(3, config.channels, config.size, config.size)
    t = torch.tensor([0, 500, 999])
    with torch.no_grad():
        a, b = ours(x, t), theirs(x, t).sample
    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    other = UNet(config)
    load_diffusers(other, theirs.state_dict())
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in other.state_dict().items())


def test_an_upsampler_is_a_unet_with_more_channels_and_a_second_time():
    torch.manual_seed(0)
    config = UpsamplerConfig(size=16, channels=3, low=8, width=16, multipliers=(1, 2))
    ours, theirs = randomized(Upsampler(config)), theirs_for(config, images=2, class_embed_type="timestep")
    theirs.class_embedding = diffusers.models.embeddings.TimestepEmbedding(256, 4 * config.width)
    theirs.load_state_dict(to_diffusers(ours), strict=True)
    x, low = torch.randn(3, 3, 16, 16), torch.randn(3, 3, 8, 8)
    t, level = torch.tensor([0, 500, 999]), torch.tensor([400, 0, 7])
    enlarged = F.interpolate(low, scale_factor=2, mode="bilinear")
    with torch.no_grad():
        a = ours(x, t, low=low, level=level)
        b = enlarged + theirs(torch.cat([x, enlarged], dim=1), t, class_labels=level).sample
    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
