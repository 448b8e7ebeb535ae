import torch
from torch import nn

from ditbook.layers.complexity import Complexity
from ditbook.metrics import complexity


class Small(nn.Module):
    """A linear map and a norm, with a table that is not trained."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 7), nn.LayerNorm(7)
        self.register_buffer("table", torch.zeros(3, 7))

    def forward(self, x, *, more):
        return self.norm(self.norm(self.linear(x) + self.table)) + more


def test_count_macs_of_one_linear_map():
    assert complexity.count_macs(nn.Linear(5, 7), torch.zeros(3, 5)) == 3 * 5 * 7


def test_all_counts_by_hand():
    wanted = Complexity(macs=3 * 5 * 7, norms=2 * 3 * 7, trainable=5 * 7 + 7 + 14, fixed=21)
    for device in ("cpu", "meta"):
        x, more = torch.zeros(3, 5, device=device), torch.zeros(1, device=device)
        assert complexity.measure(Small().to(device), x, more=more) == wanted


def test_any_callable_can_be_counted():
    a, b = torch.zeros(2, 3), torch.zeros(3, 4)
    assert complexity.count_macs(lambda x: x @ b, a) == 24
