"""The two blocks of the text-conditioned DiT against diffusers' of PixArt-α and of Stable Diffusion 3, same weights."""

import pytest
import torch
from torch import nn

from ditbook.models.text_dit import CrossAttentionBlock, JointBlock

attention = pytest.importorskip("diffusers.models.attention")
WIDTH, HEADS = 24, 2


def randomised(block):
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.double()


def inputs(*signal):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *shape, WIDTH, generator=generator).double() for shape in ((9,), (5,), signal)]


def thirds(layer, names):
    """One fused linear map as parts of it, by the names that they have in diffusers."""
    parts = len(names)
    weights, biases = layer.weight.chunk(parts), layer.bias.chunk(parts)
    return {f"{n}.{what}": v for k, n in enumerate(names) for what, v in (("weight", weights[k]), ("bias", biases[k]))}


def mlp(layer, name):
    return thirds(layer.fc1, [f"{name}.net.0.proj"]) | thirds(layer.fc2, [f"{name}.net.2"])


def test_the_block_with_cross_attention_is_that_of_pixart():
    ours = randomised(CrossAttentionBlock(WIDTH, HEADS, last=False))
    other = attention.BasicTransformerBlock(
        WIDTH, HEADS, WIDTH // HEADS, cross_attention_dim=WIDTH, activation_fn="gelu-approximate", attention_bias=True,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
    ).double()  # fmt: skip
    weights = {"scale_shift_table": ours.offset}
    weights |= thirds(ours.attn.qkv, [f"attn1.to_{part}" for part in "qkv"]) | thirds(
        ours.attn.proj, ["attn1.to_out.0"]
    )
    weights |= thirds(ours.cross.q, ["attn2.to_q"]) | thirds(ours.cross.kv, ["attn2.to_k", "attn2.to_v"])
    weights |= thirds(ours.cross.proj, ["attn2.to_out.0"]) | mlp(ours.mlp, "ff")
    other.load_state_dict(weights)
    x, text, c = inputs(6)
    real = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
    found, same = ours(x, text, c, real[:, None, None])
    bias = (1.0 - real[:, None].double()) * -1e9
    wanted = other(x, encoder_hidden_states=text, encoder_attention_mask=bias, timestep=c.flatten(1))
    torch.testing.assert_close(found, wanted)
    assert same is text


@pytest.mark.parametrize("last", [False, True])
def test_the_joint_block_is_that_of_stable_diffusion_3(last):
    ours = randomised(JointBlock(WIDTH, HEADS, last=last))
    other = attention.JointTransformerBlock(WIDTH, HEADS, WIDTH // HEADS, context_pre_only=last).double()
    image, text = ours.image, ours.text
    weights = thirds(image.modulation, ["norm1.linear"]) | mlp(image.mlp, "ff")
    weights |= thirds(image.attn.qkv, [f"attn.to_{part}" for part in "qkv"]) | thirds(
        image.attn.proj, ["attn.to_out.0"]
    )
    weights |= thirds(text.attn.qkv, [f"attn.add_{part}_proj" for part in "qkv"])
    context = thirds(text.modulation, ["norm1_context.linear"])
    if last:  # there the scale stands before the shift
        context = {name: torch.cat(value.chunk(2)[::-1]) for name, value in context.items()}
    else:
        weights |= thirds(text.attn.proj, ["attn.to_add_out"]) | mlp(text.mlp, "ff_context")
    other.load_state_dict(weights | context)
    x, words, c = inputs()
    found, found_text = ours(x, words, nn.functional.silu(c), torch.ones(3, 1, 1, 5, dtype=torch.bool))
    wanted_text, wanted = other(x, words, c)
    torch.testing.assert_close(found, wanted)
    if last:
        assert wanted_text is None
        assert found_text is words
    else:
        torch.testing.assert_close(found_text, wanted_text)
