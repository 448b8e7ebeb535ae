import math

import pytest
import torch

from ditbook.models.rnn import GRU, LAYERS, LSTM, RNN, LanguageModel, LanguageModelConfig

KINDS = sorted(LAYERS)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_on_from_a_state_is_reading_at_once(kind):
    torch.manual_seed(0)
    layer, x = LAYERS[kind](3, 5), torch.randn(2, 9, 3)
    whole, last = layer(x)
    first, state = layer(x[:, :4])
    second, state = layer(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    for got, want in zip(state, last, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_leaves_the_state_as_it_is(kind):
    torch.manual_seed(0)
    layer, x = LAYERS[kind](3, 5), torch.randn(2, 6, 3)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    out, state = layer(x, mask=mask)
    short, wanted = layer(x[1:, :4])
    for got, want in zip(state, wanted, strict=True):
        torch.testing.assert_close(got[1:], want)
    torch.testing.assert_close(out[1, :4], short[0])
    torch.testing.assert_close(out[1, 3], out[1, 5])
    back, _ = layer(x.flip(1), mask=mask.flip(1))  # padding first: the state stays zero until a token comes
    alone, _ = layer(x[1:, :4].flip(1))
    assert (back[1, :2] == 0).all()
    torch.testing.assert_close(back[1, 2:], alone[0])


def test_an_open_forget_gate_and_a_shut_input_gate_keep_the_cell():
    lstm = LSTM(2, 3)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        lstm.input.bias[:3], lstm.input.bias[3:6] = -40.0, 40.0  # input gate shut, forget gate open
    cell = torch.tensor([[0.5, -2.0, 3.0]])
    _, (_, after) = lstm(torch.randn(1, 50, 2), (torch.zeros(1, 3), cell))
    torch.testing.assert_close(after, cell)


def test_an_update_gate_of_one_keeps_the_state_of_a_gru():
    gru = GRU(2, 3)
    with torch.no_grad():
        gru.input.bias[3:6] = 40.0
    start = torch.tensor([[0.5, -0.2, 0.9]])
    out, _ = gru(torch.randn(1, 50, 2), (start,))
    torch.testing.assert_close(out[:, -1], start)


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="the sequence is empty"):
        RNN(2, 3)(torch.zeros(1, 0, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_never_sees_what_comes_next(kind):
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(11, width=6, hidden=8, layers=2, kind=kind))
    tokens = torch.randint(11, (2, 9))
    logits, states = model(tokens)
    assert logits.shape == (2, 9, 11)
    assert len(states) == 2
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    other, _ = model(changed)
    torch.testing.assert_close(other[:, :5], logits[:, :5])
    assert not torch.allclose(other[:, 5:], logits[:, 5:])
    first, states = model(tokens[:, :4])
    second, _ = model(tokens[:, 4:], states)
    torch.testing.assert_close(torch.cat([first, second], dim=1), logits)


def test_a_new_language_model_is_about_as_good_as_guessing():
    torch.manual_seed(0)
    logits, _ = LanguageModel(LanguageModelConfig(50))(torch.randint(50, (8, 30)))
    assert logits.log_softmax(-1).mean().item() == pytest.approx(-math.log(50), rel=0.05)


@pytest.mark.equation("1.2", of="ditbook.models.rnn.LanguageModel", against="frequencies of 20,000 samples")
def test_writing_samples_from_the_logits():
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(5, width=4, hidden=6, kind="gru"))
    start = torch.tensor([[1, 2]]).repeat(20_000, 1)
    text = model.write(start, 1, torch.Generator().manual_seed(0))
    assert text.shape == (20_000, 3)
    assert (text[:, :2] == start).all()
    wanted = model(start[:1])[0][0, -1].softmax(-1)
    torch.testing.assert_close(text[:, 2].bincount(minlength=5) / 20_000, wanted, rtol=0, atol=0.015)
    cold = model.write(start[:3], 6, torch.Generator().manual_seed(0), temperature=1e-4)
    assert (cold == cold[0]).all()
    assert cold[0, 2] == wanted.argmax()
    again = torch.cat([start[:1], cold[:1, 2:5]], dim=1)
    assert cold[0, 5] == model(again)[0][0, -1].argmax()


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="no kind of layer 'tcn'; there are rnn, lstm, gru"):
        LanguageModelConfig(5, kind="tcn")


@pytest.mark.equation("1.5", of="ditbook.models.rnn.RNN.step", against="autograd")
@pytest.mark.equation("1.6", of="ditbook.models.rnn.RNN.step", against="autograd")
def test_back_propagation_through_time_by_hand():
    torch.manual_seed(0)
    layer = RNN(3, 5).double()
    h, _ = layer(torch.randn(2, 12, 3, dtype=torch.float64))
    o, weight = torch.randn(2, 12, 5, dtype=torch.float64), layer.recurrent.weight
    h.retain_grad()
    (h * o).sum().backward()
    assert (h.grad == o).all()  # the direct part only: the rest reaches h through the list of states
    delta, grad = torch.zeros(2, 5, dtype=torch.float64), torch.zeros_like(weight)
    for t in reversed(range(12)):
        if t < 11:
            delta = ((1 - h[:, t + 1] ** 2) * delta) @ weight
        delta = delta + o[:, t]
        before = h[:, t - 1] if t else torch.zeros(2, 5, dtype=torch.float64)
        grad += ((1 - h[:, t] ** 2) * delta).T @ before
    torch.testing.assert_close(grad.detach(), weight.grad)


@pytest.mark.equation("1.7", of="ditbook.models.rnn.RNN.step", against="autograd's Jacobian")
def test_the_jacobian_is_a_product_over_time():
    torch.manual_seed(0)
    layer, x = RNN(3, 5).double().requires_grad_(False), torch.randn(8, 1, 3, dtype=torch.float64)
    states = []

    def run(h):
        states.clear()
        for t in range(8):
            (h,) = layer.step(layer.input(x[t]), (h[None],))
            h = h[0]
            states.append(h)
        return h

    start = torch.randn(5, dtype=torch.float64)
    whole = torch.autograd.functional.jacobian(run, start)
    run(start)
    product = torch.eye(5, dtype=torch.float64)
    for h in states:
        product = torch.diag(1 - h**2) @ layer.recurrent.weight @ product
    torch.testing.assert_close(whole, product)
