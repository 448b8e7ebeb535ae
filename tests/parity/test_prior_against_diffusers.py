"""Both priors against diffusers' PriorTransformer and transformers' GPT-2, on the same random weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.directions import scaled
from ditbook.models.prior import (
    PAD,
    AutoregressivePrior,
    AutoregressivePriorConfig,
    DiffusionPrior,
    DiffusionPriorConfig,
)

B, J, T = 3, 12, 7
SIZES = {"joint": J, "vocabulary": 19, "context": T, "width": 256, "depth": 2, "heads": 4}


def randomised(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.double()


def captions():
    torch.manual_seed(1)
    tokens = torch.randint(1, 19, (B, T))
    for row, length in enumerate((7, 4, 2)):
        tokens[row, length:] = PAD
    return tokens, F.normalize(torch.randn(B, J, dtype=torch.float64), dim=1)


def shared(theirs, table, state):
    """Let the reference use our tensors, so that gradients reach them from both sides."""
    for name, value in table.items():
        *path, last = name.split(".")
        module = theirs
        for step in path:
            module = getattr(module, step)
        del module._parameters[last]
        setattr(module, last, state(value) if callable(value) else value)
    return theirs


def prior_of_diffusers(ours):
    """diffusers' PriorTransformer with the tensors of ours."""
    diffusers = pytest.importorskip("diffusers")
    c = ours.config
    theirs = diffusers.PriorTransformer(
        num_attention_heads=c.heads, attention_head_dim=c.width // c.heads, num_layers=c.depth, embedding_dim=c.joint,
        num_embeddings=c.context, encoder_hid_proj_type=None,
    ).double()  # fmt: skip
    table = {
        "proj_in": ours.image, "embedding_proj": ours.caption.text, "proj_to_clip_embeddings": ours.out,
        "norm_out": ours.norm, "time_embedding.linear_1": ours.time.mlp[0], "time_embedding.linear_2": ours.time.mlp[2],
    }  # fmt: skip
    tensors = {"positional_embedding": ours.positions[None], "prd_embedding": ours.query[None, None]}
    for k, layer in enumerate(ours.layers):
        block = f"transformer_blocks.{k}"
        table |= {f"{block}.norm1": layer.norms[0], f"{block}.norm3": layer.norms[1]}
        table |= {f"{block}.ff.net.0.proj": layer.mlp.fc1, f"{block}.ff.net.2": layer.mlp.fc2}
        table |= {f"{block}.attn1.to_out.0": layer.attention.proj}
        for part in ("weight", "bias"):
            for name, value in zip("qkv", getattr(layer.attention.qkv, part).chunk(3), strict=True):
                tensors[f"{block}.attn1.to_{name}.{part}"] = value
    for name, module in table.items():
        tensors |= {f"{name}.{part}": getattr(module, part) for part in ("weight", "bias")}
    return shared(theirs, tensors, None)


@pytest.mark.equation("14.6", of="ditbook.models.prior.DiffusionPrior", against="diffusers' prior, gradients too")
def test_the_diffusion_prior_and_its_gradients():
    ours, (tokens, text) = randomised(DiffusionPrior(DiffusionPriorConfig(**SIZES))), captions()
    theirs = prior_of_diffusers(ours)
    x, t = torch.randn(B, J, dtype=torch.float64), torch.tensor([0, 500, 999])
    # diffusers makes its sinusoids in float32 and casts them, so do we
    found = ours(x, t, tokens, text)
    wanted = theirs(
        x, t, proj_embedding=scaled(text), encoder_hidden_states=ours.caption.words(tokens),
        attention_mask=(tokens != PAD),
    ).predicted_image_embedding  # fmt: skip
    torch.testing.assert_close(found, wanted)
    assert found.std() > 0.1
    names = [name for name, _ in ours.named_parameters() if name != "null"]
    parameters = [ours.get_parameter(name) for name in names]
    for name, one, other in zip(
        names,
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(wanted.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")
        assert one.abs().sum() > 0


def test_a_caption_shorter_than_the_context_is_as_one_that_is_padded():
    ours, (tokens, text) = randomised(DiffusionPrior(DiffusionPriorConfig(**SIZES))), captions()
    x, t = torch.randn(1, J, dtype=torch.float64), torch.tensor([5])
    torch.testing.assert_close(ours(x, t, tokens[1:2], text[1:2]), ours(x, t, tokens[1:2, :4], text[1:2]))


def gpt2(ours):
    """transformers' GPT-2 body with the tensors of ours, and no positions of its own."""
    from transformers import GPT2Config, GPT2Model

    c = ours.config
    theirs = GPT2Model(
        GPT2Config(
            vocab_size=1, n_positions=64, n_embd=c.width, n_layer=c.depth, n_head=c.heads, embd_pdrop=0.0,
            attn_pdrop=0.0, resid_pdrop=0.0, activation_function="gelu",
        )
    ).double()  # fmt: skip
    nn.init.zeros_(theirs.wpe.weight)
    tensors = {"ln_f.weight": ours.norm.weight, "ln_f.bias": ours.norm.bias}
    for k, layer in enumerate(ours.layers):
        for name, module in (("ln_1", layer.norms[0]), ("ln_2", layer.norms[1])):
            tensors |= {f"h.{k}.{name}.{part}": getattr(module, part) for part in ("weight", "bias")}
        for name, module in (
            ("attn.c_attn", layer.attention.qkv),
            ("attn.c_proj", layer.attention.proj),
            ("mlp.c_fc", layer.mlp.fc1),
            ("mlp.c_proj", layer.mlp.fc2),
        ):  # Conv1D stores (in, out)
            tensors |= {f"h.{k}.{name}.weight": module.weight.T, f"h.{k}.{name}.bias": module.bias}
    return shared(theirs, tensors, None)


AR = AutoregressivePriorConfig(**SIZES | {"width": 24}, components=5, values=9, dots=4)


@pytest.mark.equation(
    "14.10", of="ditbook.models.prior.AutoregressivePrior", against="transformers' GPT-2, gradients too"
)
def test_the_autoregressive_prior_and_its_gradients():
    ours, (tokens, text) = randomised(AutoregressivePrior(AR)), captions()
    theirs = gpt2(ours)
    codes = torch.tensor([[9, 1, 2, 3, 4], [12, 8, 7, 6, 5], [10, 0, 0, 0, 0]])
    h = torch.cat([ours.caption.words(tokens), ours.caption.text(scaled(text))[:, None], ours.codes(codes)], dim=1)
    real = torch.cat([tokens != PAD, torch.ones(B, 6, dtype=torch.bool)], dim=1)
    hidden = theirs(inputs_embeds=h + ours.positions[: h.shape[1]], attention_mask=real.long()).last_hidden_state
    wanted, found = ours.out(hidden[:, -5:]), ours(tokens, text, codes)
    torch.testing.assert_close(found, wanted)
    names = [name for name, _ in ours.named_parameters()]
    parameters = list(ours.parameters())
    for name, one, other in zip(
        names,
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(wanted.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")
