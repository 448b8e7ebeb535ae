"""ViT against transformers on the same random weights: outputs and gradients."""

import pytest
import torch
from einops import rearrange
from torch import nn

from ditbook.models.vit import ViT, ViTConfig

CONFIG = ViTConfig(size=12, channels=3, patch=4, width=24, depth=2, heads=3, num_classes=7)


@pytest.fixture
def ours():
    torch.manual_seed(0)
    model = ViT(CONFIG).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def theirs(model):
    """transformers' classifier with the weights of ours."""
    from transformers import ViTConfig as Config
    from transformers import ViTForImageClassification

    c = model.config
    twin = ViTForImageClassification(
        Config(
            image_size=c.size, patch_size=c.patch, num_channels=c.channels, hidden_size=c.width,
            num_labels=c.num_classes,
            num_hidden_layers=c.depth, num_attention_heads=c.heads, intermediate_size=4 * c.width,
            hidden_act="gelu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    ).double()  # fmt: skip
    state, ours = {}, model.state_dict()
    for name in twin.state_dict():
        state[name] = ours_by_name(name, ours, c)
    twin.load_state_dict(state)
    return twin


def ours_by_name(name, state, config):
    if name == "vit.embeddings.cls_token":
        return state["class_token"]
    if name == "vit.embeddings.position_embeddings":
        return state["positions"]
    kind = name.rsplit(".", 1)[1]
    if name.startswith("vit.embeddings.patch_embeddings"):
        value = state[f"patch_embed.{kind}"]
        p = config.patch
        return rearrange(value, "d (p q c) -> d c p q", p=p, q=p) if kind == "weight" else value
    if name.startswith("vit.layernorm"):
        return state[f"norm.{kind}"]
    if name.startswith("classifier"):
        return state[f"head.{kind}"]
    i = next(part for part in name.split(".") if part.isdigit())
    for k, letters in enumerate((("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))):
        if any(f".{letter}." in name for letter in letters):
            return state[f"layers.{i}.attention.qkv.{kind}"].chunk(3)[k]
    table = {
        "layernorm_before": "norms.0", "layernorm_after": "norms.1", "attention.output.dense": "attention.proj",
        "attention.o_proj": "attention.proj", "intermediate.dense": "mlp.fc1", "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2", "output.dense": "mlp.fc2",
    }  # fmt: skip
    found = next(ours for theirs, ours in table.items() if theirs in name)
    return state[f"layers.{i}.{found}.{kind}"]


@pytest.mark.equation("7.2", of="ditbook.models.vit.ViT.embed", against="transformers, gradients too")
@pytest.mark.equation("7.3", of="ditbook.models.vit.ViT.encode", against="transformers, gradients too")
@pytest.mark.equation("7.4", of="ditbook.models.vit.ViT", against="transformers, gradients too")
def test_tokens_logits_and_gradients(ours):
    twin = theirs(ours)
    image = torch.randn(2, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours.encode(image), twin.vit(image).last_hidden_state)
    got, wanted = ours(image), twin(image).logits
    torch.testing.assert_close(got, wanted)
    weight = torch.randn_like(got)
    mine = torch.autograd.grad((got * weight).sum(), [image, *ours.parameters()])
    named = dict(zip(["image", *(name for name, _ in ours.named_parameters())], mine, strict=True))
    parameters = dict(twin.named_parameters())
    other = torch.autograd.grad((wanted * weight).sum(), [image, *parameters.values()])
    torch.testing.assert_close(named["image"], other[0])
    for name, grad in zip(parameters, other[1:], strict=True):
        torch.testing.assert_close(
            ours_by_name(name, named, CONFIG), grad, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_attention_maps_are_theirs(ours):
    twin = theirs(ours)
    twin.set_attn_implementation("eager")
    image = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    maps = ours.attention_maps(image)
    assert maps.shape == (2, 2, 3, 10, 10)
    wanted = torch.stack(twin(image, output_attentions=True).attentions, dim=1)
    torch.testing.assert_close(maps, wanted)
