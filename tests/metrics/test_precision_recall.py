import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ditbook.metrics.precision_recall import precision_recall


def cloud(n, seed, shift=0.0, f=3):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.equation(
    "17.8", of="ditbook.metrics.precision_recall.precision_recall", against="sklearn's nearest neighbours"
)
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_against_sklearn(batch_size):
    real, generated = cloud(60, 0), cloud(50, 1, shift=0.8)

    def fraction(points, around):
        reach = NearestNeighbors(n_neighbors=4).fit(around).kneighbors(around)[0][:, 3]
        distance = torch.cdist(points.double(), around.double())
        return (distance <= torch.from_numpy(reach)).any(dim=1).double().mean().item()

    precision, recall = precision_recall(real, generated, batch_size=batch_size)
    assert precision == pytest.approx(fraction(generated, real))
    assert recall == pytest.approx(fraction(real, generated))
    assert 0.2 < min(precision, recall) < 1


def test_a_set_with_itself_and_with_one_far_away():
    real = cloud(40, 0)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)


def test_a_part_of_the_real_images_is_precise_but_recalls_little():
    real = torch.cat([cloud(100, 0), cloud(100, 1, shift=50)])
    precision, recall = precision_recall(real, cloud(100, 2))
    assert precision > 0.8
    assert 0.3 < recall < 0.55


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(5, 2\)"):
        precision_recall(torch.zeros(5, 3), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="not finite"):
        precision_recall(torch.full((5, 3), torch.inf), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="3 and 9 images are too few for neighbor 3"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))
