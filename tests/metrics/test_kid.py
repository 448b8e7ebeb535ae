import math

import pytest
import torch

from ditbook.metrics.kid import kid, mmd, polynomial_kernel


def normal(n, shift=0.0, seed=0, features=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=generator, dtype=torch.float64) + shift


def written_out(a, b):
    """Gretton et al. 2012, equation 3, as sums over pairs."""

    def k(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    xx = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


@pytest.mark.equation("17.9", of="ditbook.metrics.kid.mmd", against="sums over pairs, Gretton et al. 2012")
def test_mmd_is_the_sum_over_pairs():
    a, b = normal(7), normal(5, shift=0.5, seed=1)
    assert mmd(a, b).item() == pytest.approx(written_out(a.tolist(), b.tolist()), abs=1e-12)


def test_kernel_of_orthogonal_features_is_one():
    assert polynomial_kernel(torch.eye(2)[:1], torch.eye(2)).tolist() == [[1.5**3, 1.0]]


def test_unbiased_also_with_few_images():
    """Between two halves of one distribution the mean is zero, as near as its own standard error says."""
    values = torch.stack([mmd(normal(5, seed=2 * k), normal(5, seed=2 * k + 1)) for k in range(2000)])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))
    assert values.min() < 0


def test_kid_of_whole_sets_is_their_mmd():
    a, b = normal(20), normal(20, shift=1, seed=1)
    mean, std = kid(a, b, torch.Generator().manual_seed(0), subsets=3, size=20)
    assert mean == pytest.approx(mmd(a, b).item(), rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)


def test_kid_draws_without_replacement_from_both_sides():
    a, b = normal(60), normal(40, shift=1, seed=1)
    mean, std = kid(a, b, torch.Generator().manual_seed(0), subsets=200, size=20)
    assert abs(mean - mmd(a, b).item()) < 4 * std / math.sqrt(200) + 0.02
    assert std > 0
    assert kid(a, b, torch.Generator().manual_seed(0), subsets=200, size=20) == (mean, std)
    alike = torch.ones(2, 3)  # without replacement no subset repeats an image: the two differ by exactly this
    assert kid(alike, 2 * alike, torch.Generator().manual_seed(0), subsets=2, size=2)[0] == pytest.approx(8 + 125 - 54)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 2), "expected"),
        (torch.zeros(3, 2), torch.zeros(1, 2), "two images at least"),
        (torch.zeros(3, 2), torch.zeros(3, 4), "2 features cannot be compared with 4"),
        (torch.full((3, 2), math.nan), torch.zeros(3, 2), "not finite"),
    ],
)
def test_bad_features(a, b, message):
    with pytest.raises(ValueError, match=message):
        mmd(a, b)


@pytest.mark.parametrize("wrong", [{"subsets": 1}, {"size": 1, "subsets": 2}, {"size": 6, "subsets": 2}])
def test_bad_subsets(wrong):
    with pytest.raises(ValueError, match="subset"):
        kid(normal(5), normal(9), torch.Generator(), **({"size": 3} | wrong))
