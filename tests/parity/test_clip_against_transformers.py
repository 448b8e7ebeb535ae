"""CLIP against transformers on the same random weights: logits, loss and gradients; and OpenAI's layout."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook import data, weights
from ditbook.convert.clip import load_openai, to_openai
from ditbook.data import captions, shapes, tokenizer
from ditbook.models.clip import CLIP, CLIPConfig, class_vectors
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


@pytest.mark.equation(
    "8.3", of="ditbook.objectives.contrastive.contrastive_loss", against="the double sum, term by term"
)
def test_the_loss_is_the_double_sum_of_the_paper():
    torch.manual_seed(0)
    logits = torch.randn(5, 5, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        row = sum(math.exp(logits[i, j]) for j in range(5))
        column = sum(math.exp(logits[j, i]) for j in range(5))
        total -= math.log(math.exp(logits[i, i]) / row) + math.log(math.exp(logits[i, i]) / column)
    assert contrastive_loss(logits).item() == pytest.approx(total / 10, rel=1e-12)
    assert contrastive_loss(torch.zeros(64, 64)).item() == pytest.approx(math.log(64), rel=1e-6)
    with pytest.raises(ValueError, match=r"logits of shape \(3, 4\)"):
        contrastive_loss(torch.zeros(3, 4))


def test_the_scale_starts_at_one_over_seven_hundredths_and_is_kept_in_its_limits():
    model, (image, tokens) = CLIP(CONFIG).double(), batch()
    assert model.log_scale.exp().item() == pytest.approx(1 / 0.07)
    similarity = model.encode_image(image) @ model.encode_text(tokens).T
    torch.testing.assert_close(model(image, tokens), similarity / 0.07)
    for outside, limit in ((9.0, 100.0), (-3.0, 1.0)):
        model.log_scale.data.fill_(outside)
        model.clamp_scale()
        assert model.log_scale.exp().item() == pytest.approx(limit)
        contrastive_loss(model(image, tokens)).backward()
        assert model.log_scale.grad.item() != 0  # so it can come back
        model.log_scale.grad = None


@pytest.mark.equation("8.5", of="ditbook.models.clip.CLIP", against="the loss of untrained towers on scenes")
def test_an_untrained_model_guesses():
    rows = shapes.load("train", 128)
    words = captions.tokenizer("english")
    tokens = tokenizer.batch([words.encode(text) for text in rows["caption"]], eos=True)
    torch.manual_seed(0)
    model = weights.build("clip", weights.metadata("clip-shapes")["model"])
    with torch.no_grad():
        logits = model(data.tensors(rows)["image"], tokens, (tokens == tokenizer.EOS).int().argmax(dim=1))
    assert contrastive_loss(logits).item() == pytest.approx(math.log(128), abs=0.4)


@pytest.mark.equation(
    "8.6", of="ditbook.objectives.contrastive.contrastive_loss", against="perfect similarities at eight scales"
)
def test_the_smallest_loss_at_a_scale():
    perfect = 2 * torch.eye(64, dtype=torch.float64) - 1
    for scale in range(1, 9):
        expected = math.log(1 + 63 * math.exp(-2 * scale))
        assert contrastive_loss(scale * perfect).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.equation("8.7", of="ditbook.models.clip.class_vectors", against="the mean of each class, one by one")
def test_a_class_is_the_mean_of_its_prompts():
    model, (_, tokens) = make(), batch()
    vectors = model.encode_text(tokens)
    classes = class_vectors(model, tokens.view(2, 2, 9))
    for k in range(2):
        mean = (vectors[2 * k] + vectors[2 * k + 1]) / 2
        torch.testing.assert_close(classes[k], mean / mean.norm())
    ends = torch.tensor([[8, 5], [3, 6]])
    torch.testing.assert_close(class_vectors(model, tokens.view(2, 2, 9), ends), classes)


def test_the_first_weights_are_drawn_as_in_openai_s_code():
    torch.manual_seed(0)
    model = CLIP(CLIPConfig(size=32, width=256, depth=4, heads=4, text_width=128, text_depth=2, text_heads=4))
    for layer, width, depth in ((model.layers[3], 256, 4), (model.text_layers[1], 128, 2)):
        added = width**-0.5 * (2 * depth) ** -0.5
        for linear, std in (
            (layer.attention.qkv, width**-0.5),
            (layer.attention.proj, added),
            (layer.mlp.fc1, (2 * width) ** -0.5),
            (layer.mlp.fc2, added),
        ):
            assert linear.weight.std().item() == pytest.approx(std, rel=0.03)


def test_what_follows_the_end_of_a_text_changes_nothing():
    model, (_, tokens) = make(), batch()
    changed = tokens.clone()
    changed[1, 6:] = 7
    torch.testing.assert_close(model.encode_text(changed), model.encode_text(tokens))
    ends = torch.tensor([8, 5, 3, 6])
    torch.testing.assert_close(model.encode_text(tokens, ends), model.encode_text(tokens))
    torch.testing.assert_close(model.encode_text(tokens).norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_openai_s_layout_loads(tmp_path):
    model, other, (image, tokens) = make(), make(seed=5), batch()
    state = {name: value.half() for name, value in to_openai(model).items()} | {"input_resolution": torch.tensor(12)}
    torch.save(state, tmp_path / "clip.pt")
    load_openai(other, torch.load(tmp_path / "clip.pt", weights_only=True))
    torch.testing.assert_close(other(image, tokens), model(image, tokens), rtol=0.02, atol=0.02)
    exact = to_openai(model)
    load_openai(other, exact)
    assert {"visual.conv1.weight", "visual.proj", "text_projection", "logit_scale", "ln_final.bias"} <= set(exact)
    assert exact["visual.transformer.resblocks.1.attn.in_proj_weight"].shape == (72, 24)
    assert exact["transformer.resblocks.2.mlp.c_fc.weight"].shape == (64, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("visual.ln_pre.bias"), "key 'visual.ln_pre.bias' is missing"),
        (lambda state: state.update(other=torch.zeros(1)), "key 'other' is unexpected"),
        (lambda state: state.update(text_projection=torch.zeros(3, 3)), r"'text_projection' has shape \(3, 3\)"),
    ],
)
def test_other_files_are_refused(change, message):
    state = to_openai(make())
    change(state)
    with pytest.raises(ValueError, match=message):
        load_openai(make(seed=5), state)


def test_wrong_input_is_refused():
    model, (image, tokens) = make(), batch()
    with pytest.raises(ValueError, match="texts of 12 tokens are longer than the context of 9"):
        model.encode_text(F.pad(tokens, (0, 3)))
    with pytest.raises(ValueError, match=r"images of shape \(4, 3, 11, 12\)"):
        model.encode_image(image[:, :, :11])
    with pytest.raises(ValueError, match="size 10 is not divisible by patch 4"):
        CLIPConfig(size=10, patch=4)


def test_openai_s_smallest_model_has_151_million_parameters():
    with torch.device("meta"):
        count = sum(p.numel() for p in CLIP(CLIPConfig()).parameters())
    assert count == 151_277_313
