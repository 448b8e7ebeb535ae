import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ditbook.convert import gpt2
from ditbook.models.gpt import GPT, GPTConfig

CONFIG = GPTConfig(vocabulary=19, longest=16, width=24, depth=2, heads=4)
TOKENS = torch.randint(19, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def theirs():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=19, n_positions=16, n_embd=24, n_layer=2, n_head=4)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def make():
    torch.manual_seed(5)
    return GPT(CONFIG)


def test_a_saved_model_loads_by_its_own_config(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    config = gpt2.config(json.loads((tmp_path / "config.json").read_text()))
    assert config == CONFIG
    model = GPT(config)
    gpt2.load_gpt2(model, load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits)


def test_what_we_write_loads_in_transformers(theirs, tmp_path):
    model = make()
    theirs.config.save_pretrained(tmp_path)
    save_file(gpt2.to_gpt2(model), tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = type(theirs).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(TOKENS).logits, model(TOKENS))


def test_openai_s_file_has_no_prefix_and_older_ones_hold_masks(theirs):
    model, other = make(), make()
    state = {key.removeprefix("transformer."): value for key, value in theirs.state_dict().items()}
    state |= {"h.0.attn.bias": torch.ones(1, 1, 16, 16), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    gpt2.load_gpt2(model, state)
    gpt2.load_gpt2(other, gpt2.to_gpt2(model))
    torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits)
    assert torch.equal(other(TOKENS), model(TOKENS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("transformer.wpe.weight"), "key 'transformer.wpe.weight' is missing"),
        (lambda state: state.update(other=torch.zeros(1)), "key 'transformer.other' is unexpected"),
        (lambda state: state.update({"lm_head.weight": torch.zeros(19, 24)}), "'lm_head.weight' is not the embedding"),
        (
            lambda state: state.update({"transformer.h.0.mlp.c_fc.weight": torch.zeros(96, 24)}),
            r"'transformer.h.0.mlp.c_fc.weight' has shape \(96, 24\), this model needs \(24, 96\)",
        ),
    ],
)
def test_other_files_are_refused(change, message):
    state = gpt2.to_gpt2(make())
    change(state)
    with pytest.raises(ValueError, match=message):
        gpt2.load_gpt2(make(), state)


def test_other_models_are_refused(theirs):
    described = theirs.config.to_dict()
    for change, message in (
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"n_inner": 50}, "n_inner is 50"),
    ):
        with pytest.raises(ValueError, match=message):
            gpt2.config(described | change)
    with pytest.raises(ValueError, match="pre_norm False"):
        gpt2.to_gpt2(GPT(GPTConfig(**{**vars(CONFIG), "pre_norm": False})))
