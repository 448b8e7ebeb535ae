"""One block for the models of the book: BERT, GPT-2, ViT, CLIP, DALL·E and the decoder of the Transformer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.attention import KVCache, causal_mask
from ditbook.layers.block import TransformerBlock, residual
from ditbook.layers.mlp import GELU
from ditbook.metrics import complexity

B, T, S, D, HEADS = 2, 6, 4, 12, 3
KINDS = {
    "BERT": {"gelu": "exact", "eps": 1e-12},
    "GPT-2": {"pre_norm": True, "gelu": "tanh"},
    "ViT": {"pre_norm": True, "gelu": "exact", "eps": 1e-12},
    "CLIP": {"pre_norm": True, "gelu": "quick"},
    "decoder": {"cross": True, "gelu": "tanh"},
}


def make(**options):
    torch.manual_seed(0)
    block = TransformerBlock(D, HEADS, **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block, torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_residual_sums(pre_norm):
    x, f, norm = torch.randn(B, T, D), nn.Linear(D, D), nn.LayerNorm(D)
    wanted = x + f(norm(x)) if pre_norm else norm(x + f(x))
    assert torch.equal(residual(x, f, norm, pre_norm), wanted)


@pytest.mark.parametrize("kind", ["BERT", "GPT-2", "ViT", "CLIP"])
def test_a_block_of_each_model_is_torchs(kind):
    options = KINDS[kind]
    ours, x = make(**options)
    pre_norm, eps = options.get("pre_norm", False), options.get("eps", 1e-5)
    theirs = nn.TransformerEncoderLayer(
        D, HEADS, 4 * D, 0.0, GELU[options["gelu"]], eps, batch_first=True, norm_first=pre_norm
    ).double()
    names = {
        "self_attn.in_proj_": ours.attention.qkv, "self_attn.out_proj.": ours.attention.proj, "norm1.": ours.norms[0],
        "linear1.": ours.mlp.fc1, "linear2.": ours.mlp.fc2, "norm2.": ours.norms[1],
    }  # fmt: skip
    theirs.load_state_dict({f"{name}{k}": getattr(part, k) for name, part in names.items() for k in ("weight", "bias")})
    causal = kind in ("GPT-2", "CLIP")
    mask = causal_mask(T) if causal else None
    torch.testing.assert_close(ours(x, mask), theirs(x, src_mask=~mask if causal else None))


@pytest.mark.parametrize("kind", ["GPT-2", "decoder"])
def test_a_block_with_a_cache_is_the_causal_one(kind):
    block, x = make(**KINDS[kind])
    memory = block.cross.project_kv(torch.randn(B, S, D, dtype=torch.float64)) if kind == "decoder" else None
    cache = KVCache()
    parts = [block(part, memory=memory, cache=cache) for part in x.split([2, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), block(x, causal_mask(T), memory))


def test_a_wider_mlp():
    block, _ = make(ratio=2)
    assert block.mlp.fc1.out_features == 2 * D


def test_a_memory_belongs_to_cross_attention():
    (encoder, x), (decoder, _) = make(), make(cross=True)
    with pytest.raises(ValueError, match="takes a memory"):
        decoder(x)
    with pytest.raises(ValueError, match="cross=True"):
        encoder(x, memory=decoder.cross.project_kv(x))


@pytest.mark.equation(
    "3.15", of="ditbook.layers.block.TransformerBlock.complexity", against="PyTorch's counter on a running block"
)
@pytest.mark.equation(
    "3.16", of="ditbook.layers.block.TransformerBlock.complexity", against="the parameters of a block"
)
@pytest.mark.parametrize(("tokens", "width", "heads"), [(1, 8, 1), (7, 12, 3), (64, 32, 4)])
def test_formula_of_a_block(tokens, width, heads):
    block = TransformerBlock(width, heads).to("meta")
    measured = complexity.measure(block, torch.empty(1, tokens, width, device="meta"))
    assert TransformerBlock.complexity(tokens, width) == measured


def test_norms_are_what_the_layer_norms_see(monkeypatch):
    seen, original = [], F.layer_norm
    monkeypatch.setattr(F, "layer_norm", lambda x, *rest: seen.append(x.numel()) or original(x, *rest))
    TransformerBlock(D, HEADS)(torch.zeros(1, T, D))
    assert TransformerBlock.complexity(T, D).norms == sum(seen)
