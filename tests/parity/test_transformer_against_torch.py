"""Encoder, decoder and the whole Transformer against torch.nn with the same weights: outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.data.tokenizer import PAD
from ditbook.layers.attention import causal_mask, padding_mask
from ditbook.layers.block import TransformerBlock
from ditbook.models.transformer import Transformer, TransformerConfig

B, S, T, D, HEADS = 3, 7, 5, 12, 3


def gelu(x):
    return F.gelu(x, approximate="tanh")


OPTIONS = {"dim_feedforward": 4 * D, "dropout": 0.0, "activation": gelu, "batch_first": True}


def shuffle(module):
    """Give every parameter its own value: norms and biases begin as ones and zeros, which would hide mistakes."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.double()


def names(ours):
    """Our names of a layer's parameters by torch's."""
    table = {"norms.0": "norm1", "norms.1": "norm2", "mlp.fc1": "linear1", "mlp.fc2": "linear2"}
    table |= {"attention.proj": "self_attn.out_proj"}
    if ours.cross is not None:
        table |= {"norms.2": "norm3", "cross.proj": "multihead_attn.out_proj"}
    return {f"{theirs}.{part}": f"{ours}.{part}" for ours, theirs in table.items() for part in ("weight", "bias")}


def share(ours, theirs, prefix_ours="", prefix_theirs=""):
    """Let torch's layer use our tensors, so that gradients reach them from both sides."""
    state = dict(ours.named_parameters())
    for name, other in names(ours).items():
        _set(theirs, prefix_theirs + name, state[prefix_ours + other])
    for part in ("weight", "bias"):
        _set(theirs, f"self_attn.in_proj_{part}", state[f"attention.qkv.{part}"])
        if ours.cross is not None:
            both = torch.cat([state[f"cross.q.{part}"], state[f"cross.kv.{part}"]])
            del theirs.multihead_attn._parameters[f"in_proj_{part}"]
            setattr(theirs.multihead_attn, f"in_proj_{part}", both)
    return theirs.double()


def _set(module, name, parameter):
    *path, last = name.split(".")
    for step in path:
        module = getattr(module, step)
    module._parameters[last] = parameter


def same_gradients(ours, got, wanted, inputs):
    torch.testing.assert_close(got, wanted)
    weight = torch.randn_like(got)
    tensors = [*inputs, *ours.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad((got * weight).sum(), tensors, retain_graph=True),
        torch.autograd.grad((wanted * weight).sum(), tensors, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def padded(length):
    tokens = torch.full((B, length), 5)
    tokens[1, length - 2 :] = PAD
    tokens[2, 2:] = PAD
    return tokens


def compare_encoder(pre_norm):
    ours = shuffle(TransformerBlock(D, HEADS, pre_norm=pre_norm, gelu="tanh"))
    theirs = share(ours, nn.TransformerEncoderLayer(D, HEADS, norm_first=pre_norm, **OPTIONS))
    x, tokens = torch.randn(B, S, D, dtype=torch.float64, requires_grad=True), padded(S)
    got, wanted = ours(x, padding_mask(tokens, PAD)), theirs(x, src_key_padding_mask=tokens == PAD)
    real = tokens != PAD
    same_gradients(ours, got[real], wanted[real], [x])


def compare_decoder(pre_norm):
    ours = shuffle(TransformerBlock(D, HEADS, cross=True, pre_norm=pre_norm, gelu="tanh"))
    theirs = share(ours, nn.TransformerDecoderLayer(D, HEADS, norm_first=pre_norm, **OPTIONS))
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    memory, tokens = torch.randn(B, S, D, dtype=torch.float64, requires_grad=True), padded(S)
    got = ours(x, causal_mask(T), ours.cross.project_kv(memory), padding_mask(tokens, PAD))
    wanted = theirs(x, memory, tgt_mask=~causal_mask(T), memory_key_padding_mask=tokens == PAD)
    same_gradients(ours, got, wanted, [x, memory])


@pytest.mark.equation("3.9", of="ditbook.layers.block.residual", against="torch.nn.TransformerEncoderLayer")
def test_encoder_with_norms_after_the_sums():
    compare_encoder(pre_norm=False)


@pytest.mark.equation("3.10", of="ditbook.layers.block.residual", against="torch.nn.TransformerEncoderLayer")
@pytest.mark.equation(
    "3.11",
    of="ditbook.layers.block.TransformerBlock",
    against="torch.nn.TransformerEncoderLayer",
)
def test_encoder_with_norms_before_the_sublayers():
    compare_encoder(pre_norm=True)


def test_decoder_with_norms_after_the_sums():
    compare_decoder(pre_norm=False)


@pytest.mark.equation(
    "3.12",
    of="ditbook.layers.block.TransformerBlock",
    against="torch.nn.TransformerDecoderLayer",
)
def test_decoder_with_norms_before_the_sublayers():
    compare_decoder(pre_norm=True)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_whole_transformer(pre_norm):
    model = shuffle(
        Transformer(
            TransformerConfig(source=11, target=9, width=D, depth=2, heads=HEADS, pre_norm=pre_norm, longest=20)
        )
    )
    norm = [nn.LayerNorm(D), nn.LayerNorm(D)] if pre_norm else [None, None]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, HEADS, norm_first=pre_norm, **OPTIONS), 2, norm[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, HEADS, norm_first=pre_norm, **OPTIONS), 2, norm[1])
    for ours, theirs in ((model.encoder, encoder.layers), (model.decoder, decoder.layers)):
        for layer, other in zip(ours, theirs, strict=True):
            share(layer, other)
    if pre_norm:
        encoder.norm, decoder.norm = model.encoder_norm, model.decoder_norm
    source, target = padded(S), torch.randint(4, 9, (B, T))
    embedded = [
        table(tokens) * D**0.5 + model.positions[: tokens.shape[1]]
        for table, tokens in ((model.embed_source, source), (model.embed_target, target))
    ]
    whole = nn.Transformer(D, HEADS, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
    pad = source == PAD
    wanted = model.out(
        whole(*embedded, tgt_mask=~causal_mask(T), src_key_padding_mask=pad, memory_key_padding_mask=pad)
    )
    same_gradients(model, model(source, target), wanted, [])
