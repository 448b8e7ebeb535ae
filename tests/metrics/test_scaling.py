import math

import numpy as np
import pytest

from ditbook.metrics import complexity, scaling
from ditbook.models.dit import DiTConfig

FID = {  # Peebles & Xie 2023, Table 4: 400,000 steps, no guidance
    "S/8": 153.60, "S/4": 100.41, "S/2": 68.40, "B/8": 122.74, "B/4": 68.38, "B/2": 43.47,
    "L/8": 118.87, "L/4": 45.64, "L/2": 23.33, "XL/8": 106.41, "XL/4": 43.01, "XL/2": 19.47,
}  # fmt: skip


def counts(name: str) -> complexity.Complexity:
    return DiTConfig.from_name(f"DiT-{name}").complexity()


@pytest.mark.equation("18.1", of="ditbook.metrics.scaling.pearson", against="numpy's corrcoef")
def test_correlation_is_numpys():
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    assert scaling.pearson(list(x), list(y)) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)


@pytest.mark.equation("18.1", of="ditbook.metrics.scaling.pearson", against="the paper's figure 8")
def test_the_papers_correlation_takes_the_logarithm():
    gflops, fid = [counts(name).gflops for name in FID], list(FID.values())
    logs = [math.log10(g) for g in gflops]
    parameters = [math.log10(counts(name).trainable) for name in FID]
    assert scaling.pearson(logs, fid) == pytest.approx(-0.93, abs=0.005)  # figure 8
    assert scaling.pearson(gflops, fid) == pytest.approx(-0.725, abs=0.002)
    assert scaling.pearson(parameters, fid) == pytest.approx(-0.47, abs=0.01)


@pytest.mark.equation("18.2", of="ditbook.metrics.scaling.trend", against="numpy's polyfit")
def test_trend_is_numpys():
    x, y = np.random.default_rng(1).normal(size=(2, 20))
    slope, intercept = np.polyfit(x, y, 1)
    assert scaling.trend(list(x), list(y)) == pytest.approx((intercept, slope), rel=1e-12)


@pytest.mark.equation(
    "18.3", of="ditbook.metrics.scaling.training_macs", against="the paper's largest training, by hand"
)
def test_what_the_largest_training_of_the_comparison_cost():
    assert scaling.training_macs(counts("XL/2").gflops * 1e9, 256, 400_000) == pytest.approx(3.645e19, rel=1e-3)


@pytest.mark.equation("18.5", of="ditbook.metrics.scaling.sampling_macs", against="the paper's section 5.1")
def test_what_a_sample_costs():
    large, larger = counts("L/2").gflops * 1e9, counts("XL/2").gflops * 1e9
    assert scaling.sampling_macs(large, 1000) == pytest.approx(80.7e12, rel=1e-3)  # section 5.1
    assert scaling.sampling_macs(larger, 128) == pytest.approx(15.2e12, rel=2e-3)
    assert scaling.sampling_macs(larger, 128, guided=True) == 2 * scaling.sampling_macs(larger, 128)


@pytest.mark.equation("18.4", of="ditbook.metrics.scaling.frontier", against="every pair compared")
def test_the_frontier_is_what_no_cheaper_one_beats():
    costs, scores = list(np.random.default_rng(2).random((2, 50)))
    found = scaling.frontier(costs, scores)
    brute = [(c, s) for c, s in zip(costs, scores, strict=True) if s <= min(scores[costs <= c])]
    assert found == sorted(brute)
    assert scaling.frontier([2, 1, 3], [5, 5, 4]) == [(1, 5), (3, 4)]


@pytest.mark.parametrize("function", [scaling.pearson, scaling.trend])
def test_lists_that_say_nothing_are_refused(function):
    with pytest.raises(ValueError, match="equal length, two points or more; got 2 and 1"):
        function([1, 2], [1])
    with pytest.raises(ValueError, match="all numbers are equal"):
        function([1, 1], [1, 2])


@pytest.mark.equation("5.11", of="ditbook.metrics.scaling.power_law", against="numpy's least squares, and exact points")
def test_a_power_law_is_a_line_of_logarithms():
    sizes = [1e3, 1e4, 3e5, 2e6]
    exponent, scale = scaling.power_law(sizes, [(8.8e13 / n) ** 0.076 for n in sizes])
    assert exponent == pytest.approx(0.076)
    assert scale == pytest.approx(8.8e13)
    losses = [3.1, 2.4, 2.3, 1.7]
    slope, intercept = np.polyfit(np.log(sizes), np.log(losses), 1)
    exponent, scale = scaling.power_law(sizes, losses)
    assert exponent == pytest.approx(-slope)
    assert exponent * math.log(scale) == pytest.approx(intercept)
    with pytest.raises(ValueError, match="positive numbers"):
        scaling.power_law([1.0, -2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="neither correlation nor trend"):
        scaling.power_law([1.0, 2.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="without slope"):
        scaling.power_law([1.0, 2.0, 4.0], [1.0, 2.0, 1.0])
