import pytest
import torch

from ditbook.convert.bert import config_from_transformers, load_transformers, to_transformers
from ditbook.models.bert import BERT, BERTConfig

CONFIG = BERTConfig(vocabulary=40, positions=12, width=24, depth=2, heads=3)
FILE = {
    "vocab_size": 40, "max_position_embeddings": 12, "type_vocab_size": 2, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 96, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip


def make(seed=0):
    torch.manual_seed(seed)
    model = BERT(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_there_and_back():
    model, other, tokens = make(), make(seed=5), torch.tensor([[5, 9, 3, 7]])
    load_transformers(other, to_transformers(model))
    torch.testing.assert_close(other(tokens), model(tokens))


def test_the_names_of_the_released_file_are_understood():
    """bert-base-uncased calls the parameters of a norm gamma and beta, and repeats the tied matrix."""
    model, other, tokens = make(), make(seed=5), torch.tensor([[5, 9, 3, 7]])
    state = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in to_transformers(model).items()
    }
    assert "bert.encoder.layer.1.output.LayerNorm.gamma" in state
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    state["bert.embeddings.position_ids"] = torch.arange(12)[None]
    load_transformers(other, state)
    torch.testing.assert_close(other(tokens), model(tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("cls.predictions.bias"), "key 'cls.predictions.bias' is missing"),
        (lambda state: state.update(other=torch.zeros(1)), "key 'other' is unexpected"),
        (
            lambda state: state.update({"bert.pooler.dense.bias": torch.zeros(3)}),
            r"'bert.pooler.dense.bias' has shape \(3,\), this model needs \(24,\)",
        ),
    ],
)
def test_other_files_are_refused(change, message):
    state = to_transformers(make())
    change(state)
    with pytest.raises(ValueError, match=message):
        load_transformers(make(seed=5), state)


def test_configs():
    assert config_from_transformers(FILE) == CONFIG
    for key, value in (("hidden_act", "relu"), ("layer_norm_eps", 1e-5), ("intermediate_size", 100)):
        with pytest.raises(ValueError, match=f"{key} is {value}; this model computes with"):
            config_from_transformers({**FILE, key: value})
