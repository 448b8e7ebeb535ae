import math

import pytest
import torch

from ditbook.objectives.contrastive import contrastive_loss


@pytest.mark.equation(
    "8.3", of="ditbook.objectives.contrastive.contrastive_loss", against="the double sum, term by term"
)
def test_the_loss_is_the_double_sum_of_the_paper():
    torch.manual_seed(0)
    logits = torch.randn(5, 5, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        row = sum(math.exp(logits[i, j]) for j in range(5))
        column = sum(math.exp(logits[j, i]) for j in range(5))
        total -= math.log(math.exp(logits[i, i]) / row) + math.log(math.exp(logits[i, i]) / column)
    assert contrastive_loss(logits).item() == pytest.approx(total / 10, rel=1e-12)
    assert contrastive_loss(torch.zeros(64, 64)).item() == pytest.approx(math.log(64), rel=1e-6)
    with pytest.raises(ValueError, match=r"logits of shape \(3, 4\)"):
        contrastive_loss(torch.zeros(3, 4))


@pytest.mark.equation(
    "8.6", of="ditbook.objectives.contrastive.contrastive_loss", against="perfect similarities at eight scales"
)
def test_the_smallest_loss_at_a_scale():
    perfect = 2 * torch.eye(64, dtype=torch.float64) - 1
    for scale in range(1, 9):
        expected = math.log(1 + 63 * math.exp(-2 * scale))
        assert contrastive_loss(scale * perfect).item() == pytest.approx(expected, rel=1e-9)


def test_the_loss_runs_on_the_meta_device():
    assert contrastive_loss(torch.zeros(4, 4, device="meta")).shape == ()
