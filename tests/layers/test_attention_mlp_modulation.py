import math

import pytest
import torch
from torch import nn

from ditbook.layers.attention import SelfAttention, attention_map, scaled_dot_product
from ditbook.layers.mlp import MLP
from ditbook.layers.modulation import modulate


def test_attention_of_hand_made_scores():
    q = torch.tensor([[[2.0 * math.log(3), 0, 0, 0]]])  # over √4: score log 3 with the first key, 0 with the second
    k = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]])
    v = torch.tensor([[[4.0], [8.0]]])
    assert scaled_dot_product(q, k, v).item() == pytest.approx(0.75 * 4 + 0.25 * 8, rel=1e-6)


def test_self_attention_is_the_written_out_one_for_each_head():
    torch.manual_seed(0)
    layer, x = SelfAttention(12, 3), torch.randn(2, 5, 12)
    q, k, v = layer.qkv(x).split(12, dim=-1)
    heads = [scaled_dot_product(*(part[..., 4 * h : 4 * h + 4] for part in (q, k, v))) for h in range(3)]
    torch.testing.assert_close(layer(x), layer.proj(torch.cat(heads, dim=-1)), rtol=1e-5, atol=1e-6)


def test_self_attention_does_not_see_the_order_of_tokens():
    torch.manual_seed(0)
    layer, x, order = SelfAttention(12, 3), torch.randn(1, 5, 12), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=1e-5, atol=1e-6)


def test_rows_of_the_attention_map_sum_to_one():
    torch.manual_seed(0)
    weights = attention_map(SelfAttention(12, 3), torch.randn(2, 5, 12))
    assert weights.shape == (2, 3, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))


def test_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="width 10 is not divisible by 3 heads; take a multiple of 3"):
        SelfAttention(10, 3)


@pytest.mark.equation("16.6", of="ditbook.layers.modulation.modulate", against="x (1 + scale) + shift, token by token")
def test_modulate():
    x, shift, scale = torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(2, 4)
    out = modulate(x, shift, scale)
    for b in range(2):
        for token in range(3):
            torch.testing.assert_close(out[b, token], x[b, token] * (1 + scale[b]) + shift[b])
    assert torch.equal(modulate(x, torch.zeros(2, 4), torch.zeros(2, 4)), x)


@pytest.mark.equation("3.8", of="ditbook.layers.mlp.MLP", against="two matrix products around the formula of GELU")
def test_mlp_is_two_linear_maps_around_the_tanh_gelu():
    torch.manual_seed(0)
    mlp, x = MLP(6), torch.randn(2, 3, 6)
    assert mlp.fc1.out_features == 24
    h = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    torch.testing.assert_close(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(mlp(x), mlp.fc2(nn.functional.gelu(h)), atol=1e-7)
