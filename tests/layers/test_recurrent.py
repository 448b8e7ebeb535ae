import pytest
import torch

from ditbook.layers.recurrent import GRU, LAYERS, LSTM, RNN

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


@pytest.mark.equation("1.5", of="ditbook.layers.recurrent.RNN.step", against="autograd")
@pytest.mark.equation("1.6", of="ditbook.layers.recurrent.RNN.step", against="autograd")
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


@pytest.mark.equation("1.7", of="ditbook.layers.recurrent.RNN.step", against="autograd's Jacobian")
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
