import math

import pytest
import torch

from ditbook import generation
from ditbook.layers.recurrent import LAYERS
from ditbook.models.rnn import LanguageModel, LanguageModelConfig

KINDS = sorted(LAYERS)


def make(vocabulary=11, **changes):
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig(vocabulary=vocabulary, width=6, hidden=8, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_never_sees_what_comes_next(kind):
    model, tokens = make(layers=2, kind=kind), torch.randint(11, (2, 9))
    logits = model(tokens)
    assert logits.shape == (2, 9, 11)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    other = model(changed)
    torch.testing.assert_close(other[:, :5], logits[:, :5])
    assert not torch.allclose(other[:, 5:], logits[:, 5:])


@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_pieces_is_reading_at_once(kind):
    model, tokens = make(layers=2, kind=kind), torch.randint(11, (2, 9))
    logits, states = model(tokens), model.start(tokens[:, :4])
    assert len(states) == 2
    rest, _ = model.decode(tokens[:, 4:], states)
    torch.testing.assert_close(rest, logits[:, 4:])
    state = model.start(tokens[:, :0])
    for t in range(9):
        one, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(one, logits[:, t])


def test_a_new_language_model_is_about_as_good_as_guessing():
    torch.manual_seed(0)
    logits = LanguageModel(LanguageModelConfig(vocabulary=50))(torch.randint(50, (8, 30)))
    assert logits.log_softmax(-1).mean().item() == pytest.approx(-math.log(50), rel=0.05)


@pytest.mark.equation("1.2", of="ditbook.models.rnn.LanguageModel", against="frequencies of 20,000 samples")
@pytest.mark.parametrize("kind", KINDS)
def test_writing_goes_on_from_the_prompt(kind):
    model, prompt = make(5, layers=2, kind=kind), torch.tensor([[1, 2]]).repeat(20_000, 1)
    options = {"first": prompt[:, -1], "max_length": 1, "generator": torch.Generator().manual_seed(0)}
    text = generation.sample(model.step, model.start(prompt[:, :-1]), **options)
    assert text.shape == (20_000, 1)
    wanted = model(prompt[:1])[0, -1].softmax(-1)
    torch.testing.assert_close(text[:, 0].bincount(minlength=5) / 20_000, wanted, rtol=0, atol=0.015)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_is_that_of_reading_all_anew(kind):
    model, prompt = make(5, layers=2, kind=kind), torch.tensor([[1, 2], [4, 0]])
    text, state = prompt, model.start(prompt[:, :-1])
    for _ in range(6):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generation.greedy(model.step, state, first=prompt[:, -1], max_length=6), text[:, 2:])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no kind of layer 'tcn'; there are rnn, lstm, gru"):
        LanguageModelConfig(vocabulary=5, kind="tcn")
    for name in ("vocabulary", "width", "hidden", "layers"):
        with pytest.raises(ValueError, match=f"{name} 0 must be at least 1"):
            LanguageModelConfig(**{"vocabulary": 5, name: 0})
    with pytest.raises(ValueError, match="the sequence is empty"):
        make()(torch.zeros(2, 0, dtype=torch.long))
