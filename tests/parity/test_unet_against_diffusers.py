"""Our U-Net against diffusers' UNet2DModel with the same weights and the same 256 frequencies of time."""

import re

import pytest
import torch

from ditbook.models.unet import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")

BLOCK = {"time": "time_emb_proj", "shortcut": "conv_shortcut"}


def their_name(ours):
    """Our key in their layout (q, k and v are still one)."""
    if match := re.fullmatch(r"(down|up)\.(\d+)\.blocks\.(\d+)\.(\w+)\.(\w+)", ours):
        way, level, block, name, kind = match.groups()
        return f"{way}_blocks.{level}.resnets.{block}.{BLOCK.get(name, name)}.{kind}"
    if match := re.fullmatch(r"(down|up)\.(\d+)\.change\.(\w+)", ours):
        return f"{match[1]}_blocks.{match[2]}.{match[1]}samplers.0.conv.{match[3]}"
    if match := re.fullmatch(r"middle_(1|2)\.(\w+)\.(\w+)", ours):
        return f"mid_block.resnets.{int(match[1]) - 1}.{BLOCK.get(match[2], match[2])}.{match[3]}"
    for name, theirs in {
        "time_embed.mlp.0": "time_embedding.linear_1",
        "time_embed.mlp.2": "time_embedding.linear_2",
        "norm_out": "conv_norm_out",
        "middle_attn.norm": "mid_block.attentions.0.group_norm",
        "middle_attn.attn.proj": "mid_block.attentions.0.to_out.0",
        "middle_attn.attn.qkv": "mid_block.attentions.0.to_qkv",
    }.items():
        if ours.startswith(name + "."):
            return theirs + ours[len(name) :]
    return ours


def their_state(model):
    state = {}
    for key, value in model.state_dict().items():
        name = their_name(key)
        if "to_qkv" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("to_qkv", f"to_{letter}")] = part
        else:
            state[name] = value
    return state


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
    theirs.load_state_dict(their_state(ours), strict=True)
    x = torch.randn(3, config.channels, config.size, config.size)
    t = torch.tensor([0, 500, 999])
    with torch.no_grad():
        a, b = ours(x, t), theirs(x, t).sample
    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
