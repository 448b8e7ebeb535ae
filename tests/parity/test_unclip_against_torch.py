"""The decoder of unCLIP against the same network in torch.nn's own layers: outputs and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig

CONFIG = UnCLIPDecoderConfig(size=8, channels=3, patch=2, width=32, depth=2, heads=4, joint=12, extra=3)
D = CONFIG.width


def ours():
    torch.manual_seed(0)
    model = UnCLIPDecoder(CONFIG)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.double()


def by_torch(model, x, t, embedding):
    """The forward pass in torch's functions: a strided convolution for patches, and its multi-head attention."""
    p = dict(model.named_parameters())
    kernel = p["patch_embed.weight"].view(D, 2, 2, 3).permute(0, 3, 1, 2)
    tokens = F.conv2d(x, kernel, p["patch_embed.bias"], stride=2).flatten(2).transpose(1, 2) + model.pos_embed
    z = embedding * math.sqrt(12)
    omega = 10_000.0 ** (-torch.arange(128, dtype=torch.float32) / 128)
    waves = torch.cat([(t[:, None] * omega).cos(), (t[:, None] * omega).sin()], dim=1).double()

    def linear(name, value):
        return F.linear(value, p[f"{name}.weight"], p[f"{name}.bias"])

    c = F.silu(linear("time_embed.mlp.2", F.silu(linear("time_embed.mlp.0", waves))) + linear("vector", z))
    tokens = torch.cat([linear("extra", z).view(len(x), 3, D), tokens], dim=1)

    def modulated(value, shift, scale):
        return F.layer_norm(value, (D,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    for k in range(CONFIG.depth):
        name = f"blocks.{k}"
        shift, scale, gate, shift2, scale2, gate2 = linear(f"{name}.modulation", c).view(len(x), 6, D).unbind(1)
        h = modulated(tokens, shift, scale).transpose(0, 1)
        attended, _ = F.multi_head_attention_forward(
            h, h, h, D, CONFIG.heads, p[f"{name}.attn.qkv.weight"], p[f"{name}.attn.qkv.bias"], None, None, False, 0.0,
            p[f"{name}.attn.proj.weight"], p[f"{name}.attn.proj.bias"],
        )  # fmt: skip
        tokens = tokens + gate[:, None] * attended.transpose(0, 1)
        h = F.gelu(linear(f"{name}.mlp.fc1", modulated(tokens, shift2, scale2)), approximate="tanh")
        tokens = tokens + gate2[:, None] * linear(f"{name}.mlp.fc2", h)
    shift, scale = linear("final.modulation", c).chunk(2, dim=1)
    out = linear("final.linear", modulated(tokens[:, 3:], shift, scale))  # (B, T, (row, column, channel))
    grid = out.view(len(x), 16, 4, 3).permute(0, 3, 2, 1).flatten(1, 2)  # (B, channel · row · column, T)
    return F.fold(grid, (8, 8), 2, stride=2)


@pytest.mark.equation("14.3", of="ditbook.models.unclip.UnCLIPDecoder", against="torch.nn's layers, gradients too")
def test_outputs_and_gradients():
    model, generator = ours(), torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    embedding = F.normalize(torch.randn(3, 12, generator=generator, dtype=torch.float64), dim=1)
    t = torch.tensor([0.0, 3.5, 20.0])
    found, wanted = model(x, t, embedding), by_torch(model, x, t, embedding)
    assert found.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)  # waves of float32, so t is small
    names = [name for name, _ in model.named_parameters() if name != "null"]
    parameters = [model.get_parameter(name) for name in names]
    for name, one, other in zip(
        names,
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(wanted.square().sum(), parameters),
        strict=True,
    ):
        error = (one - other).norm() / other.norm()
        assert error < 1e-4, (name, error)
