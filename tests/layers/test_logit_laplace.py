import pytest
import torch
from scipy import integrate
from torch.distributions import Laplace, SigmoidTransform, TransformedDistribution

from ditbook.layers.logit_laplace import from_unit, logit_laplace, to_unit


@pytest.mark.equation(
    "9.5", of="ditbook.layers.logit_laplace.logit_laplace", against="torch.distributions; an integral"
)
def test_the_density_is_that_of_a_sigmoid_of_a_laplace_variable():
    y = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    mean, log_scale = torch.tensor(0.4, dtype=torch.float64), torch.tensor(-0.3, dtype=torch.float64)
    theirs = TransformedDistribution(Laplace(mean, log_scale.exp()), SigmoidTransform())
    torch.testing.assert_close(logit_laplace(y, mean, log_scale), -theirs.log_prob(y))

    def density(value):
        return (-logit_laplace(torch.tensor(value, dtype=torch.float64), mean, log_scale)).exp().item()

    assert integrate.quad(density, 0, 1, points=[0.6])[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.equation("9.6", of="ditbook.layers.logit_laplace.to_unit", against="the paper's formula for bytes")
def test_images_stay_away_from_the_edges():
    pixels = torch.arange(256, dtype=torch.float64)
    torch.testing.assert_close(to_unit(pixels / 127.5 - 1), (1 - 2 * 0.1) / 255 * pixels + 0.1)
    torch.testing.assert_close(from_unit(to_unit(pixels / 127.5 - 1)), pixels / 127.5 - 1)
    assert from_unit(torch.tensor([0.0, 1.0])).tolist() == [-1.0, 1.0]
