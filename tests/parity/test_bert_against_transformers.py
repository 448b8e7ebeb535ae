"""BERT against transformers on the same random weights: outputs, loss and gradients; files both ways."""

import json

import pytest
import torch
from torch import nn

from ditbook.convert.bert import config_from_transformers, load_transformers, to_transformers
from ditbook.models.bert import BERT, BERTConfig
from ditbook.objectives.masking import IGNORED, pretraining_loss

CONFIG = BERTConfig(vocabulary=40, positions=12, width=24, depth=2, heads=3)
TIED = "cls.predictions.decoder."


@pytest.fixture
def ours():
    torch.manual_seed(0)
    model = BERT(CONFIG).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def empty(config):
    """transformers' model of the size of ours."""
    from transformers import BertConfig, BertForPreTraining

    return BertForPreTraining(
        BertConfig(
            vocab_size=config.vocabulary, hidden_size=config.width, num_hidden_layers=config.depth,
            num_attention_heads=config.heads, intermediate_size=4 * config.width, hidden_act="gelu",
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=config.positions,
            type_vocab_size=config.segments, pad_token_id=config.pad,
        )
    )  # fmt: skip


def theirs(model):
    """transformers' model with the weights of ours."""
    twin = empty(model.config).double()
    missing = twin.load_state_dict(to_transformers(model), strict=False)
    assert missing.unexpected_keys == []
    assert {key for key in missing.missing_keys if "position_ids" not in key} <= {f"{TIED}weight", f"{TIED}bias"}
    twin.tie_weights()
    return twin


@pytest.fixture
def batch():
    """Two pairs of sentences; the second is padded."""
    torch.manual_seed(1)
    tokens = torch.randint(4, 40, (2, 9))
    tokens[1, 6:] = 0
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0, 0]])
    labels = torch.full((2, 9), IGNORED)
    labels[0, 3], labels[0, 7], labels[1, 2] = 11, 4, 39
    return tokens, segments, labels, torch.tensor([1, 0])


@pytest.mark.equation("4.1", of="ditbook.models.bert.BERT.embed", against="transformers, gradients too")
@pytest.mark.equation("4.3", of="ditbook.models.bert.BERT.word_logits", against="transformers, gradients too")
@pytest.mark.equation("4.5", of="ditbook.models.bert.BERT.pool", against="transformers, gradients too")
@pytest.mark.equation("4.4", of="ditbook.objectives.masking.pretraining_loss", against="transformers, gradients too")
@pytest.mark.equation("4.6", of="ditbook.objectives.masking.pretraining_loss", against="transformers, gradients too")
def test_outputs_loss_and_gradients(ours, batch):
    tokens, segments, labels, random = batch
    twin = theirs(ours)
    out = twin(
        input_ids=tokens,
        token_type_ids=segments,
        attention_mask=(tokens != 0).long(),
        labels=labels,
        next_sentence_label=random,
    )
    words, sentences = ours(tokens, segments=segments)
    real = tokens != 0
    torch.testing.assert_close(words[real], out.prediction_logits[real])
    torch.testing.assert_close(sentences, out.seq_relationship_logits)
    embedded = twin.bert.embeddings(input_ids=tokens, token_type_ids=segments)
    torch.testing.assert_close(ours.embed(tokens, segments), embedded)
    loss = pretraining_loss(words, sentences, labels, random)
    torch.testing.assert_close(loss, out.loss)

    loss.backward()
    out.loss.backward()
    wanted = {name: p.grad for name, p in twin.named_parameters() if not name.startswith(TIED)}
    for parameter in ours.parameters():
        parameter.data = parameter.grad
    for name, gradient in to_transformers(ours).items():
        torch.testing.assert_close(gradient, wanted[name], msg=lambda text, name=name: f"{name}: {text}")


def test_attention_maps_are_theirs(ours, batch):
    tokens, segments, *_ = batch
    twin = theirs(ours)
    twin.set_attn_implementation("eager")
    out = twin(tokens, token_type_ids=segments, attention_mask=(tokens != 0).long(), output_attentions=True)
    torch.testing.assert_close(ours.attention_maps(tokens, segments=segments), torch.stack(out.attentions, dim=1))


def test_a_saved_model_loads_and_what_we_write_loads_there(tmp_path, batch):
    from safetensors.torch import load_file
    from transformers import BertForPreTraining

    torch.manual_seed(3)
    twin = empty(CONFIG).eval()
    twin.save_pretrained(tmp_path / "theirs")
    config = config_from_transformers(json.loads((tmp_path / "theirs/config.json").read_text()))
    assert config == CONFIG
    model = BERT(config)
    load_transformers(model, load_file(tmp_path / "theirs/model.safetensors"))
    tokens, segments, *_ = batch
    mask = (tokens != 0).long()
    out = twin(tokens, token_type_ids=segments, attention_mask=mask)
    words, sentences = model(tokens, segments=segments)
    torch.testing.assert_close(words[tokens != 0], out.prediction_logits[tokens != 0])
    torch.testing.assert_close(sentences, out.seq_relationship_logits)

    torch.manual_seed(4)
    other = BERT(CONFIG)
    empty(CONFIG).save_pretrained(tmp_path / "ours", state_dict=to_transformers(other))
    back = BertForPreTraining.from_pretrained(tmp_path / "ours").eval()
    out = back(tokens, token_type_ids=segments, attention_mask=mask)
    torch.testing.assert_close(other(tokens, segments=segments)[1], out.seq_relationship_logits)
    torch.testing.assert_close(other(tokens, segments=segments)[0][tokens != 0], out.prediction_logits[tokens != 0])
