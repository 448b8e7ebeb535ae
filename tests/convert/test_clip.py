import math

import pytest
import torch
from torch import nn

from ditbook.convert.clip import load_openai, to_openai
from ditbook.models.clip import CLIP, CLIPConfig

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
