"""RNN, LSTM and GRU against torch.nn with the same weights: outputs, states and gradients."""

import pytest
import torch
from torch import nn

from ditbook.layers.recurrent import GRU, LSTM, RNN
from ditbook.models.rnn import LanguageModel, LanguageModelConfig

B, T, D, H = 3, 7, 5, 4


def pair(kind, seed=0):
    """One of our layers and torch's with the same weights."""
    torch.manual_seed(seed)
    mine = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}[kind](D, H)
    theirs = kind(D, H, batch_first=True)
    names = {
        "weight_ih_l0": "input.weight",
        "bias_ih_l0": "input.bias",
        "weight_hh_l0": "recurrent.weight",
        "bias_hh_l0": "recurrent.bias",
    }
    state = mine.state_dict()
    theirs.load_state_dict({name: state[other] for name, other in names.items()})
    return mine.double(), theirs.double(), names


def compare(kind):
    mine, theirs, names = pair(kind)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    start = [torch.randn(B, H, dtype=torch.float64, requires_grad=True) for _ in range(mine.parts)]
    first = tuple(part[None] for part in start)
    out, state = mine(x, tuple(start))
    wanted, last = theirs(x, first if kind is nn.LSTM else first[0])
    torch.testing.assert_close(out, wanted)
    for part, other in zip(state, last if kind is nn.LSTM else [last], strict=True):
        torch.testing.assert_close(part, other[0])
    weight = torch.randn(B, T, H, dtype=torch.float64)
    inputs = [x, *start]
    ours = torch.autograd.grad((out * weight).sum() + state[-1].sum(), [*inputs, *mine.parameters()])
    other = torch.autograd.grad((wanted * weight).sum() + last[-1].sum(), [*inputs, *theirs.parameters()])
    ours_by_name = dict(zip([name for name, _ in mine.named_parameters()], ours[len(inputs) :], strict=True))
    for got, want in zip(ours[: len(inputs)], other[: len(inputs)], strict=True):
        torch.testing.assert_close(got, want)
    for (name, _), want in zip(theirs.named_parameters(), other[len(inputs) :], strict=True):
        torch.testing.assert_close(ours_by_name[names[name]], want)


@pytest.mark.equation("1.1", of="ditbook.layers.recurrent.RNN.step", against="torch.nn.RNN, outputs and gradients")
def test_rnn():
    compare(nn.RNN)


@pytest.mark.equation("1.8", of="ditbook.layers.recurrent.LSTM.step", against="torch.nn.LSTM, outputs and gradients")
@pytest.mark.equation("1.9", of="ditbook.layers.recurrent.LSTM.step", against="torch.nn.LSTM, outputs and gradients")
@pytest.mark.equation("1.10", of="ditbook.layers.recurrent.LSTM.step", against="torch.nn.LSTM, outputs and gradients")
def test_lstm():
    compare(nn.LSTM)


@pytest.mark.equation("1.11", of="ditbook.layers.recurrent.GRU.step", against="torch.nn.GRU, outputs and gradients")
@pytest.mark.equation("1.12", of="ditbook.layers.recurrent.GRU.step", against="torch.nn.GRU, outputs and gradients")
@pytest.mark.equation("1.13", of="ditbook.layers.recurrent.GRU.step", against="torch.nn.GRU, outputs and gradients")
def test_gru():
    compare(nn.GRU)


@pytest.mark.parametrize(("kind", "cell"), [(nn.RNN, nn.RNNCell), (nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)])
def test_one_step_is_that_of_the_cell(kind, cell):
    mine, theirs, _ = pair(kind)
    single = cell(D, H).double()
    single.load_state_dict({name.removesuffix("_l0"): value for name, value in theirs.state_dict().items()})
    x, state = torch.randn(B, D, dtype=torch.float64), tuple(torch.randn(mine.parts, B, H, dtype=torch.float64))
    after = mine.step(mine.input(x), state)
    wanted = single(x, state if kind is nn.LSTM else state[0])
    for got, want in zip(after, wanted if kind is nn.LSTM else [wanted], strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_language_model_of_two_layers(kind):
    torch.manual_seed(0)
    config = LanguageModelConfig(vocabulary=11, width=D, hidden=H, layers=2, kind=kind.__name__.lower())
    model = LanguageModel(config).double()
    theirs = kind(D, H, num_layers=2, batch_first=True).double()
    names = {}
    for layer in (0, 1):
        for name, other in pair(kind)[2].items():
            names[name.replace("l0", f"l{layer}")] = f"layers.{layer}.{other}"
    state = model.state_dict()
    theirs.load_state_dict({name: state[other] for name, other in names.items()})
    tokens = torch.randint(11, (B, T))
    logits = model(tokens)
    outputs, last = theirs(model.embed(tokens))
    wanted = model.out(outputs)
    torch.testing.assert_close(logits, wanted)
    for part, states in zip(last if kind is nn.LSTM else [last], zip(*model.start(tokens), strict=True), strict=True):
        torch.testing.assert_close(torch.stack(states), part)
    weight = torch.randn_like(logits)
    parameters = dict(model.named_parameters())
    ours = torch.autograd.grad((logits * weight).sum(), list(parameters.values()))
    ours_by_name = dict(zip(parameters, ours, strict=True))
    recurrent = dict(theirs.named_parameters())
    other = torch.autograd.grad((wanted * weight).sum(), [*recurrent.values(), model.embed.weight])
    for name, grad in zip(recurrent, other, strict=False):
        torch.testing.assert_close(ours_by_name[names[name]], grad)
    torch.testing.assert_close(ours_by_name["embed.weight"], other[-1])
