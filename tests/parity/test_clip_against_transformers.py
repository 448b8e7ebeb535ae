"""CLIP against transformers on the same random weights: logits, loss and gradients."""

import math

import pytest
import torch
from torch import nn

from ditbook.convert.clip import to_openai
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.objectives.contrastive import contrastive_loss

CONFIG = CLIPConfig(
    size=12, patch=4, width=24, depth=2, heads=3, vocabulary=40, context=9, text_width=16, text_depth=3, text_heads=2,
    joint=10,
)  # fmt: skip


def make(seed=0):
    torch.manual_seed(seed)
    model = CLIP(CONFIG).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.log_scale.data.fill_(math.log(1 / 0.07))
    return model


def batch():
    torch.manual_seed(1)
    tokens = torch.randint(1, 38, (4, 9))
    for row, end in enumerate((8, 5, 3, 6)):
        tokens[row, end] = 39
        tokens[row, end + 1 :] = 0
    return torch.randn(4, 3, 12, 12, dtype=torch.float64), tokens


def theirs(model):
    from transformers import CLIPConfig as Config
    from transformers import CLIPModel

    c = model.config
    vision = dict(
        hidden_size=c.width, intermediate_size=4 * c.width, num_hidden_layers=c.depth, num_attention_heads=c.heads,
        image_size=c.size, patch_size=c.patch, hidden_act="quick_gelu",
    )  # fmt: skip
    text = dict(
        hidden_size=c.text_width, intermediate_size=4 * c.text_width, num_hidden_layers=c.text_depth,
        num_attention_heads=c.text_heads, vocab_size=c.vocabulary, max_position_embeddings=c.context,
        hidden_act="quick_gelu", bos_token_id=0, eos_token_id=39,
    )  # fmt: skip
    twin = CLIPModel(Config(vision_config=vision, text_config=text, projection_dim=c.joint)).double()
    state = to_openai(model)
    twin.load_state_dict(
        {name: from_openai(name, state) for name in twin.state_dict() if "position_ids" not in name}, strict=False
    )
    return twin


def from_openai(name, state):
    """The value that transformers calls `name`, taken from OpenAI's layout."""
    outside = {
        "logit_scale": "logit_scale",
        "visual_projection.weight": "visual.proj",
        "text_projection.weight": "text_projection",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
    }
    if name in outside:
        value = state[outside[name]]
        return value.T if "projection" in name else value
    kind = name.rsplit(".", 1)[1]
    for norm, other in (
        ("pre_layrnorm", "visual.ln_pre"),
        ("post_layernorm", "visual.ln_post"),
        ("final_layer_norm", "ln_final"),
    ):
        if norm in name:
            return state[f"{other}.{kind}"]
    tower = "visual.transformer" if name.startswith("vision") else "transformer"
    block = f"{tower}.resblocks.{next(part for part in name.split('.') if part.isdigit())}"
    for k, letter in enumerate("qkv"):
        if f".{letter}_proj." in name:
            return state[f"{block}.attn.in_proj_{kind}"].chunk(3)[k]
    inside = {
        "out_proj": "attn.out_proj",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "fc1": "mlp.c_fc",
        "fc2": "mlp.c_proj",
    }
    return state[f"{block}.{next(other for part, other in inside.items() if part in name)}.{kind}"]


@pytest.mark.equation("8.1", of="ditbook.models.clip.CLIP.encode_image", against="transformers, gradients too")
@pytest.mark.equation("8.2", of="ditbook.models.clip.CLIP", against="transformers, gradients too")
@pytest.mark.equation(
    "8.4", of="ditbook.objectives.contrastive.contrastive_loss", against="transformers, gradients too"
)
def test_logits_loss_and_gradients():
    model, (image, tokens) = make(), batch()
    twin = theirs(model)
    out = twin(input_ids=tokens, pixel_values=image, attention_mask=torch.ones_like(tokens), return_loss=True)
    logits = model(image, tokens)
    torch.testing.assert_close(logits, out.logits_per_image)
    loss = contrastive_loss(logits)
    torch.testing.assert_close(loss, out.loss)
    loss.backward()
    out.loss.backward()
    grads = CLIP(CONFIG).double()
    for (_, parameter), (_, source) in zip(grads.named_parameters(), model.named_parameters(), strict=True):
        parameter.data = source.grad
    wanted = to_openai(grads)
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(
            from_openai(name, wanted), parameter.grad, msg=lambda text, name=name: f"{name}: {text}"
        )
