import math

import pytest
import torch

from ditbook.metrics.inception_score import inception_score


def test_the_worst_and_the_best():
    assert inception_score(torch.full((50, 8), 1 / 8)) == pytest.approx((1, 0))
    assert inception_score(torch.eye(8).repeat(20, 1)) == pytest.approx((8, 0))
    assert inception_score(torch.eye(8)[:1].repeat(50, 1)) == pytest.approx((1, 0))  # clear, but one kind only


@pytest.mark.equation("17.7", of="ditbook.metrics.inception_score.inception_score", against="term by term")
def test_the_score_is_the_exponential_of_the_mean_divergence():
    p = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(dim=1)
    parts = []
    for part in p.split(6):
        overall = [sum(row[c].item() for row in part) / 6 for c in range(4)]
        mean = sum(row[c].item() * math.log(row[c].item() / overall[c]) for row in part for c in range(4)) / 6
        parts.append(math.exp(mean))
    mean, spread = inception_score(p, splits=2)
    assert mean == pytest.approx(sum(parts) / 2)
    assert spread == pytest.approx(abs(parts[0] - parts[1]) / 2)


def test_bad_input_is_refused():
    for bad in (torch.zeros(3), torch.zeros(0, 4)):
        with pytest.raises(ValueError, match=r"expected \(N, K\)"):
            inception_score(bad)
    for bad in (torch.ones(20, 4), torch.tensor([[1.5, -0.5]]).repeat(20, 1)):
        with pytest.raises(ValueError, match="no probabilities"):
            inception_score(bad)
    for splits in (0, 21):
        with pytest.raises(ValueError, match=f"20 images cannot be split into {splits} parts"):
            inception_score(torch.full((20, 2), 0.5), splits)
