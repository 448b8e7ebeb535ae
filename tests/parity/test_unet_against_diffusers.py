"""Our U-Net against diffusers' UNet2DModel with the same weights and the same 256 frequencies of time."""

import pytest
import torch

from ditbook.convert.unet import load_diffusers, to_diffusers
from ditbook.models.unet import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(size=16, channels=3, width=16, multipliers=(1, 2, 3), blocks=2, heads=2),
    ],
)
def test_same_weights_same_output(config):
    torch.manual_seed(0)
    ours = UNet(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # the last convolution starts at zero
    levels = len(config.multipliers)
    theirs = diffusers.UNet2DModel(
        sample_size=config.size,
        in_channels=config.channels,
        out_channels=config.channels,
        block_out_channels=[config.width * m for m in config.multipliers],
        layers_per_block=config.blocks,
        down_block_types=["DownBlock2D"] * levels,
        up_block_types=["UpBlock2D"] * levels,
        attention_head_dim=config.width * config.multipliers[-1] // config.heads,
        norm_num_groups=8,
    ).eval()
    theirs.time_proj = diffusers.models.embeddings.Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    theirs.time_embedding = diffusers.models.embeddings.TimestepEmbedding(256, 4 * config.width)
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
