"""Attention and norms against torch.nn."""

import pytest
import torch
from torch import nn

from ditbook.layers import attention, modulation

WIDTH, HEADS = 24, 3


def pair():
    """Our layer and torch's with the same weights."""
    torch.manual_seed(0)
    ours = attention.SelfAttention(WIDTH, HEADS)
    nn.init.normal_(ours.qkv.bias)
    nn.init.normal_(ours.proj.bias)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    return ours, theirs


@pytest.mark.equation(
    "3.3", of="ditbook.layers.attention.SelfAttention", against="torch.nn.MultiheadAttention, outputs and gradients"
)
@pytest.mark.equation(
    "3.4", of="ditbook.layers.attention.SelfAttention", against="torch.nn.MultiheadAttention, outputs and gradients"
)
def test_outputs_and_gradients_of_self_attention():
    ours, theirs = pair()
    x = torch.randn(2, 7, WIDTH)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    out_a, (out_b, _) = ours(a), theirs(b, b, b, need_weights=False)
    torch.testing.assert_close(out_a, out_b, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(out_a)
    (out_a * weight).sum().backward()
    (out_b * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.qkv.weight.grad, theirs.in_proj_weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.qkv.bias.grad, theirs.in_proj_bias.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.proj.weight.grad, theirs.out_proj.weight.grad, rtol=1e-4, atol=1e-4)


def test_attention_map_is_torchs_weights():
    ours, theirs = pair()
    x = torch.randn(2, 7, WIDTH)
    _, weights = theirs(x, x, x, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(attention.attention_map(ours, x), weights, rtol=1e-5, atol=1e-6)


@pytest.mark.equation(
    "16.4",
    of="ditbook.layers.attention.scaled_dot_product",
    against="torch.nn.functional.scaled_dot_product_attention, outputs and gradients",
)
def test_written_out_attention_is_the_fused_kernel():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator).requires_grad_() for n in (5, 6, 6))
    ours = attention.scaled_dot_product(q, k, v)
    theirs = nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_layer_norm_is_torchs_with_the_small_epsilon():
    x = 1e-3 * torch.randn(2, 7, WIDTH)  # so small that ε matters
    norm = nn.LayerNorm(WIDTH, eps=1e-6, elementwise_affine=False)
    torch.testing.assert_close(modulation.layer_norm(x), norm(x))
    assert not torch.allclose(modulation.layer_norm(x), nn.LayerNorm(WIDTH, elementwise_affine=False)(x), rtol=1e-2)
