import math

import pytest
import torch

from ditbook.layers.attention import (
    CrossAttention,
    KVCache,
    SelfAttention,
    attention_map,
    attention_weights,
    causal_mask,
    padding_mask,
    scaled_dot_product,
)


def test_masks_by_hand():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, seen=2).tolist() == [[True, True, True, False], [True, True, True, True]]
    mask = padding_mask(torch.tensor([[5, 6, 0], [7, 0, 0]]), pad=0)
    assert mask.shape == (2, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True, True, False], [True, False, False]]


@pytest.mark.equation("3.1", of="ditbook.layers.attention.scaled_dot_product", against="a loop over queries and keys")
@pytest.mark.equation("3.5", of="ditbook.layers.attention.attention_weights", against="a loop over the allowed keys")
@pytest.mark.parametrize("mask", [None, causal_mask(4), torch.tensor([True, False, True, True])])
def test_the_twin_is_a_loop_over_queries_and_keys(mask):
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, 5, dtype=torch.float64) for _ in range(3))
    allowed = torch.ones(4, 4, dtype=torch.bool) if mask is None else mask.expand(4, 4)
    for i in range(4):
        scores = {j: (q[i] @ k[j] / 5**0.5).exp() for j in range(4) if allowed[i, j]}
        total = sum(scores.values())
        wanted = sum(score / total * v[j] for j, score in scores.items())
        torch.testing.assert_close(scaled_dot_product(q, k, v, mask)[i], wanted)
        for j in range(4):
            weight = attention_weights(q, k, mask)[i, j]
            torch.testing.assert_close(weight, scores[j] / total if j in scores else torch.zeros_like(weight))


@pytest.mark.equation("3.2", of="ditbook.layers.attention.attention_weights", against="random queries and keys")
@pytest.mark.parametrize("width", [4, 64, 512])
def test_scores_have_the_same_variance_whatever_the_width(width):
    """The score of a key of zeros is 0, so the log of a ratio of weights is the score of the other key."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(20_000, 1, width, generator=generator)
    k = torch.stack([torch.randn(20_000, width, generator=generator), torch.zeros(20_000, width)], dim=1)
    weights = attention_weights(q, k)
    scores = (weights[..., 0] / weights[..., 1]).log()
    assert scores.mean().item() == pytest.approx(0, abs=0.03)
    assert scores.var().item() == pytest.approx(1, abs=0.05)  # (q kᵀ) has the variance `width`


def test_gradient_of_the_softmax():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    keys = torch.eye(5, dtype=torch.float64) * 5**0.5  # so that the scores are the query itself
    p = attention_weights(scores, keys)[0].tolist()
    gradient = torch.autograd.functional.jacobian(lambda s: attention_weights(s, keys)[0], scores)[:, 0]
    wanted = [[p[i] * ((i == j) - p[j]) for j in range(5)] for i in range(5)]
    torch.testing.assert_close(gradient, torch.tensor(wanted, dtype=torch.float64))


def test_the_twin_is_the_fused_kernel():
    torch.manual_seed(0)
    layer, x = SelfAttention(12, 3).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    mixed = scaled_dot_product(*layer.project(x), causal_mask(5))
    wanted = layer(x, causal_mask(5))
    torch.testing.assert_close(layer.proj(mixed.transpose(1, 2).flatten(2)), wanted)
    weights = attention_map(layer, x, causal_mask(5))
    assert weights.shape == (2, 3, 5, 5)
    assert (weights.triu(1) == 0).all()
    torch.testing.assert_close((weights @ layer.project(x)[2]), mixed)


def test_a_growing_cache_is_a_causal_mask():
    torch.manual_seed(0)
    layer, x, cache = SelfAttention(12, 3).double(), torch.randn(2, 6, 12, dtype=torch.float64), KVCache()
    pieces = [layer(part, cache=cache) for part in x.split([1, 3, 2], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), layer(x, causal_mask(6)))
    assert len(cache) == 6
    for kept, wanted in zip(cache.kv, layer.project(x)[1:], strict=True):
        torch.testing.assert_close(kept, wanted)


def test_a_mask_and_a_cache_exclude_keys_together():
    torch.manual_seed(0)
    layer, x, cache = SelfAttention(12, 3).double(), torch.randn(2, 5, 12, dtype=torch.float64), KVCache()
    kept = padding_mask(torch.tensor([[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]]), pad=0)
    first, second = layer(x[:, :3], kept[..., :3], cache), layer(x[:, 3:], kept, cache)
    torch.testing.assert_close(torch.cat([first, second], dim=1), layer(x, kept & causal_mask(5)))


def test_rows_of_a_cache():
    cache = KVCache()
    assert len(cache) == len(cache.select(torch.tensor([0]))) == 0
    k, v = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    cache.extend(k, v)
    rows = torch.tensor([2, 0, 0, 1])
    chosen = cache.select(rows)
    assert torch.equal(chosen.kv[0], k[rows])
    assert torch.equal(chosen.kv[1], v[rows])
    chosen.extend(k[rows], v[rows])
    assert (len(chosen), len(cache)) == (8, 4)  # two caches, not one


def test_cross_attention_is_torchs():
    torch.manual_seed(0)
    ours = CrossAttention(12, 3).double()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, memory = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    pad = torch.zeros(2, 7, dtype=torch.bool)
    pad[1, 5:] = True
    wanted, _ = theirs(x, memory, memory, key_padding_mask=pad)
    torch.testing.assert_close(ours(x, ours.project_kv(memory), ~pad[:, None, None]), wanted)
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 3; take a multiple of 3"):
        CrossAttention(10, 3)


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
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 3; take a multiple of 3"):
        SelfAttention(10, 3)
