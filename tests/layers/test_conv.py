"""The parts of autoencoder and U-Net, against torch.nn and their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.conv import Downsample, ResidualBlock, SpatialAttention, Upsample


def randomized(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize(("out", "time_width"), [(8, None), (12, None), (8, 5), (12, 5)])
def test_residual_block_written_out(out, time_width):
    block = randomized(ResidualBlock(8, out, 4, 1e-3, time_width))
    x, c = 0.01 * torch.randn(2, 8, 6, 6), torch.randn(2, 5)
    h = F.silu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, 1e-3))
    h = F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
    if time_width:
        h = h + (c @ block.time.weight.T + block.time.bias).view(2, out, 1, 1)
    h = F.silu(F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, 1e-3))
    h = F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1)
    through = x if out == 8 else F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, c) if time_width else block(x), through + h, rtol=1e-5, atol=1e-5)


def test_spatial_attention_is_torchs_over_all_positions():
    block, x = randomized(SpatialAttention(8, 2, 4, 1e-3)), torch.randn(2, 8, 3, 5)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    qkv, proj = block.attn.qkv, block.attn.proj
    theirs.load_state_dict({"in_proj_weight": qkv.weight, "in_proj_bias": qkv.bias, "out_proj.weight": proj.weight,
                            "out_proj.bias": proj.bias})  # fmt: skip
    tokens = F.group_norm(x, 4, block.norm.weight, block.norm.bias, 1e-3).flatten(2).transpose(1, 2)
    wanted = x + theirs(tokens, tokens, tokens)[0].transpose(1, 2).view(2, 8, 3, 5)
    torch.testing.assert_close(block(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
def test_downsampling_pads_where_it_should(symmetric):
    layer, x = Downsample(3, symmetric), torch.randn(2, 3, 8, 6)
    border = (1, 1, 1, 1) if symmetric else (0, 1, 0, 1)
    wanted = F.conv2d(F.pad(x, border), layer.weight, layer.bias)[:, :, ::2, ::2]
    assert wanted.shape == (2, 3, 4, 3)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_upsampling_repeats_each_pixel_four_times():
    layer, x = Upsample(3), torch.randn(2, 3, 4, 3)
    four = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(layer(x), F.conv2d(four, layer.weight, layer.bias, padding=1), rtol=1e-5, atol=1e-5)
