import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook import data, weights
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


def test_wrong_input_is_refused():
    model, (image, tokens) = make(), batch()
    with pytest.raises(ValueError, match="texts of 12 tokens are longer than the context of 9"):
        model.encode_text(F.pad(tokens, (0, 3)))
    with pytest.raises(ValueError, match=r"images of shape \(4, 3, 11, 12\)"):
        model.encode_image(image[:, :, :11])
    with pytest.raises(ValueError, match=r"images of type torch.uint8"):
        model.encode_image(image.to(torch.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 10}, "size 10 is not divisible by patch 4"),
        ({"heads": 5}, "width 24 is not divisible by heads 5"),
        ({"text_heads": 3}, "text_width 16 is not divisible by text_heads 3; take a multiple of 3"),
        ({"text_depth": 0}, "text_depth 0 must be at least 1"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        CLIPConfig(**{**vars(CONFIG), **change})


def test_openai_s_smallest_model_has_151_million_parameters():
    with torch.device("meta"):
        count = sum(p.numel() for p in CLIP(CLIPConfig()).parameters())
    assert count == 151_277_313
