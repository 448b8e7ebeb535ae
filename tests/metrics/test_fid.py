import math

import numpy as np
import pytest
import scipy.linalg
import torch

from ditbook.metrics.fid import Statistics, fid_infinity, frechet, statistics


def features(n=400, f=6, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(f, f, generator=generator, dtype=torch.float64)
    return torch.randn(n, f, generator=generator, dtype=torch.float64) @ mix + shift


def of(features):
    result = Statistics()
    result.add(features)
    return result


def gaussian(mean, covariance, count=10_000):
    mean, covariance = (torch.as_tensor(value, dtype=torch.float64) for value in (mean, covariance))
    return Statistics(count, mean, covariance * (count - 1))


@pytest.mark.equation("17.5", of="ditbook.metrics.fid.Statistics", against="numpy on all features at once")
def test_one_pass_gives_the_mean_and_covariance_of_everything():
    x = features(shift=1e6)  # far from zero, where sums of squares lose their digits
    parts = x.split([1, 150, 49, 200])
    once, merged = Statistics(), Statistics()
    for part in parts:
        once.add(part)
    for part in reversed(parts):
        merged.merge(of(part))
    for result in (once, merged):
        assert result.count == 400
        np.testing.assert_allclose(result.mean, x.numpy().mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(result.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-7)


@pytest.mark.equation("17.3", of="ditbook.metrics.fid.frechet", against="scipy.linalg.sqrtm")
@pytest.mark.equation("17.4", of="ditbook.metrics.fid.frechet", against="scipy.linalg.sqrtm")
def test_the_distance_is_that_of_scipy():
    a, b = of(features()), of(features(seed=1, shift=0.5))
    root = scipy.linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy()).real
    expected = ((a.mean - b.mean) ** 2).sum() + a.covariance.trace() + b.covariance.trace() - 2 * np.trace(root)
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet(b, a) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.equation("17.2", of="ditbook.metrics.fid.frechet", against="one dimension, by hand")
def test_closed_forms():
    f, m, s = 5, torch.arange(5.0), 1.7
    a, b = gaussian(torch.zeros(f), torch.eye(f)), gaussian(m, s**2 * torch.eye(f))
    assert frechet(a, b) == pytest.approx(30 + f * (1 - s) ** 2)
    one = gaussian([2.0], [[9.0]])
    assert frechet(one, gaussian([5.0], [[1.0]])) == pytest.approx(3**2 + (3 - 1) ** 2)


def test_directions_without_spread_do_no_harm():
    flat = torch.diag(torch.tensor([1.0, 0.0, 4.0]))
    a, b = gaussian(torch.zeros(3), flat), gaussian(torch.zeros(3), torch.eye(3))
    for pair in ((a, b), (b, a)):
        assert frechet(*pair) == pytest.approx(0 + 1 + 1, rel=1e-6)


def test_features_written_twice_make_singular_covariances_and_twice_the_distance():
    a, b = features(), features(seed=1, shift=0.5)
    once, twice = frechet(of(a), of(b)), frechet(of(torch.cat([a, a], dim=1)), of(torch.cat([b, b], dim=1)))
    assert twice == pytest.approx(2 * once, rel=1e-6)
    with pytest.warns(UserWarning, match="5 images for 6 features"):  # both of rank 4
        assert frechet(of(a[:5]), of(a[:5])) == pytest.approx(0, abs=1e-6)


def test_too_few_images_are_warned_of():
    few, many = of(features(6)), of(features(400))
    for pair in ((few, many), (many, few)):
        with pytest.warns(UserWarning, match="6 images for 6 features"):
            frechet(*pair)


def test_features_are_gathered_batch_by_batch():
    images, seen = torch.randn(7, 1, 2, 3, generator=torch.Generator().manual_seed(0)), []

    def flat(batch):
        seen.append(len(batch))
        return batch.flatten(1)

    result = statistics(flat, images, batch_size=3)
    assert seen == [3, 3, 1]
    torch.testing.assert_close(result.mean, images.flatten(1).double().mean(dim=0))


@pytest.mark.equation("17.6", of="ditbook.metrics.fid.fid_infinity", against="a line, and numpy.polyfit")
def test_infinitely_many_images_are_the_intercept_of_a_line():
    counts = [100, 200, 500, 1000]
    assert fid_infinity(counts, [2 + 30 / n for n in counts]) == pytest.approx(2)
    values = [3.0, 2.5, 2.2, 2.3]
    assert fid_infinity(counts, values) == pytest.approx(np.polyfit([1 / n for n in counts], values, 1)[1])


def test_bad_input_is_refused():
    s = Statistics()
    for bad in (torch.zeros(3), torch.zeros(0, 4), torch.zeros(4, 0)):
        with pytest.raises(ValueError, match=r"expected \(N, F\)"):
            s.add(bad)
    with pytest.raises(ValueError, match="not finite"):
        s.add(torch.full((2, 2), math.nan))
    s.add(torch.ones(1, 2))
    with pytest.raises(ValueError, match="two images at least, not 1"):
        _ = s.covariance
    with pytest.raises(ValueError, match="3 features cannot be added to 2"):
        s.add(torch.ones(2, 3))
    with pytest.raises(ValueError, match="6 features cannot be compared with 5"):
        frechet(of(features()), of(features(f=5)))
    for counts, values in (([10], [1.0]), ([10, 10], [1.0, 2.0]), ([10, 20], [1.0])):
        with pytest.raises(ValueError, match="do not make a line"):
            fid_infinity(counts, values)
