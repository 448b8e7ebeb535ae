import pytest

from ditbook.layers.complexity import Complexity


def test_totals():
    counts = Complexity(macs=3_000_000_000, norms=500_000_000, trainable=7, fixed=2)
    assert counts.gflops == pytest.approx(3.5)
    assert counts.total == 9


def test_sums():
    one, other = Complexity(macs=1, norms=2, trainable=3, fixed=4), Complexity(macs=10, trainable=30)
    assert one + other == Complexity(macs=11, norms=2, trainable=33, fixed=4)
