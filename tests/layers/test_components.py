import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ditbook.layers.components import QuantizedComponents


def vectors():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.1, 0.05], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    return 1 + torch.randn(500, 6, generator=generator, dtype=torch.float64) * spread @ turn


@pytest.mark.equation(
    "14.8", of="ditbook.layers.components.QuantizedComponents.encode", against="scikit-learn's PCA, cut by NumPy"
)
@pytest.mark.equation(
    "14.9", of="ditbook.layers.components.QuantizedComponents.decode", against="scikit-learn's inverse transform"
)
def test_codes_are_those_of_scikit_learn():
    x = vectors()
    model = QuantizedComponents(6, 4, 16).double()
    model.fit(x)
    pca = PCA(4).fit(x.numpy())
    sign = np.sign((model.basis.numpy().T * pca.components_).sum(axis=1))  # of a component is arbitrary
    projected = pca.transform(x.numpy()) * sign
    edges = [np.linspace(low, high, 17) for low, high in zip(projected.min(0), projected.max(0), strict=True)]
    codes = np.stack([np.digitize(p, e[1:-1]) for p, e in zip(projected.T, edges, strict=True)], axis=1)
    found = model.encode(x).numpy()
    assert (found == codes).mean() > 0.999  # a value on an edge may fall to either side
    middle = np.stack([(e[:-1] + e[1:])[c] / 2 for e, c in zip(edges, found.T, strict=True)], axis=1)
    torch.testing.assert_close(
        model.decode(torch.from_numpy(found)), torch.from_numpy(pca.inverse_transform(middle * sign))
    )


def test_more_values_and_components_lose_less():
    x, errors = vectors(), []
    for components, values in ((2, 8), (4, 8), (4, 64), (6, 1024)):
        model = QuantizedComponents(6, components, values).double()
        model.fit(x)
        errors.append((model.decode(model.encode(x)) - x).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


def test_vectors_outside_of_the_range_get_its_ends():
    model = QuantizedComponents(3, 2, 10)
    assert model.encode(torch.tensor([[-9.0, 9.0, 0.0]])).tolist() == [[0, 9]]


@pytest.mark.parametrize(("components", "values"), [(0, 8), (7, 8), (2, 1)])
def test_sizes_that_do_not_fit(components, values):
    with pytest.raises(ValueError, match="take 1 to 6, and 2 values at least"):
        QuantizedComponents(6, components, values)
