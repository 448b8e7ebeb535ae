"""The four blocks of DiT."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.adaln import AdaLNZeroBlock
from ditbook.models.dit import BLOCKS, DiT, DiTConfig

CONFIG = DiTConfig(size=8, channels=3, patch=2, width=32, depth=2, heads=4, num_classes=10)


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module


def inputs(config=CONFIG, batch=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.channels, config.size, config.size, generator=generator)
    return x, torch.tensor([0, 500, 999])[:batch], torch.tensor([0, 9, 10])[:batch]


def with_block(block):
    return DiT(dataclasses.replace(CONFIG, block=block))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_makes_use_of_time_and_class(block):
    model, (x, t, y) = randomised(with_block(block)), inputs()
    out = model(x, t, y)
    assert out.shape == (3, 6, 8, 8)
    assert (model(x, t.flip(0), y) - out).abs().amax(dim=(1, 2, 3))[0] > 1e-3
    assert (model(x, t, y.flip(0)) - out).abs().amax(dim=(1, 2, 3))[0] > 1e-3
    out.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("block", BLOCKS)
def test_only_adaln_zero_starts_as_the_identity(block):
    torch.manual_seed(0)
    model, (x, t, y) = with_block(block), inputs()
    assert not model(x, t, y).any()  # the last map is zero in all of them
    vector = BLOCKS[block].condition == "vector"
    tokens, c = torch.randn(2, 16, 32), torch.randn(2, 32) if vector else torch.randn(2, 2, 32)
    assert torch.equal(model.blocks[0](tokens, c), tokens) == (block == "adaLN-Zero")


def test_the_tokens_in_context_are_read_and_dropped():
    model, (x, t, y) = randomised(with_block("in-context")), inputs()
    seen = []
    model.blocks[-1].register_forward_hook(lambda module, args, out: seen.append(out))
    model.final.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(x, t, y)
    last, kept = seen
    assert last.shape == (3, 18, 32)
    assert torch.equal(kept, last[:, :16])


def plain_twin(block):
    """torch.nn's encoder layer with the weights of an in-context block."""
    twin = nn.TransformerEncoderLayer(
        32, 4, 128, 0.0, lambda x: F.gelu(x, approximate="tanh"), 1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": block.attn.qkv, "self_attn.out_proj.": block.attn.proj, "linear1.": block.mlp.fc1,
        "linear2.": block.mlp.fc2, "norm1.": block.norms[0], "norm2.": block.norms[-1],
    }  # fmt: skip
    twin.load_state_dict({f"{name}{kind}": getattr(part, kind) for name, part in names.items()
                          for kind in ("weight", "bias")})  # fmt: skip
    return twin


@pytest.mark.equation("16.16", of="ditbook.models.dit.InContextBlock", against="torch.nn.TransformerEncoderLayer")
def test_the_in_context_block_is_an_encoder_layer():
    block = randomised(with_block("in-context")).blocks[0]
    x = torch.randn(2, 18, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x, x), plain_twin(block)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.equation("16.17", of="ditbook.models.dit.CrossAttentionBlock", against="torch.nn.MultiheadAttention")
def test_the_cross_attention_block_looks_at_the_condition():
    block = randomised(with_block("cross-attention")).blocks[0]
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(2, 16, 32, generator=generator), torch.randn(2, 2, 32, generator=generator)
    look = nn.MultiheadAttention(32, 4, batch_first=True)
    look.load_state_dict(
        {
            "in_proj_weight": torch.cat([block.cross.q.weight, block.cross.kv.weight]),
            "in_proj_bias": torch.cat([block.cross.q.bias, block.cross.kv.bias]),
            "out_proj.weight": block.cross.proj.weight,
            "out_proj.bias": block.cross.proj.bias,
        }
    )
    z = x + block.attn(block.norms[0](x))
    z = z + look(block.norms[1](z), c, c)[0]
    z = z + block.mlp(block.norms[2](z))
    torch.testing.assert_close(block(x, c), z, rtol=1e-4, atol=1e-4)


@pytest.mark.equation("16.18", of="ditbook.layers.adaln.AdaLNBlock", against="an adaLN-Zero block whose gates are one")
def test_adaln_is_adaln_zero_with_open_gates():
    block, zero = randomised(with_block("adaLN")).blocks[0], AdaLNZeroBlock(32, 4)
    state = block.state_dict()
    for kind, gate in (("weight", torch.zeros(32, 32)), ("bias", torch.ones(32))):
        shift_1, scale_1, shift_2, scale_2 = state[f"modulation.{kind}"].chunk(4)
        state[f"modulation.{kind}"] = torch.cat([shift_1, scale_1, gate, shift_2, scale_2, gate])
    zero.load_state_dict(state)
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(2, 16, 32, generator=generator), torch.randn(2, 32, generator=generator)
    torch.testing.assert_close(block(x, c), zero(x, c))
