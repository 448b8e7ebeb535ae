"""Data whose best prediction is known in closed form."""

import pytest
import torch

from ditbook.diffusion import schedules
from ditbook.diffusion.gaussian import GaussianDiffusion


class Mixture:
    """Pixels that are independent and of a mixture of normal distributions; each component is a class."""

    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([-1.0, 0.6], dtype=torch.float64)
    stds = torch.tensor([0.3, 0.5], dtype=torch.float64)

    def logits(self, x, a, b):
        """log p(x, class) of x = a x₀ + b ε, up to a constant, (…, 2)."""
        variance = (a * self.stds) ** 2 + b**2
        return self.weights.log() - variance.log() / 2 - (x[..., None] - a * self.means) ** 2 / (2 * variance)

    def of_class(self, x, a, b):
        """The mean of x₀ given x and each class, (…, 2)."""
        variance = (a * self.stds) ** 2 + b**2
        return self.means + a * self.stds**2 / variance * (x[..., None] - a * self.means)

    def x_start(self, x, a, b):
        """The mean of x₀ given x: the best prediction."""
        return (self.logits(x, a, b).softmax(-1) * self.of_class(x, a, b)).sum(-1)

    def model(self, process):
        """The best model of x₀: `model(x, t)` for the timesteps of a process, fractions included."""

        def predict(x, t):
            if isinstance(process, GaussianDiffusion):
                sigma = process.sigmas_of(t, x)
                a = 1 / (1 + sigma**2).sqrt()
                b = torch.where(sigma.isinf(), 1, a * sigma)
            else:
                b = (t.to(x.dtype) / 1000).view(-1, *[1] * (x.ndim - 1))
                a = 1 - b
            return self.x_start(x, a[..., None], b[..., None])

        return predict


@pytest.fixture(scope="package")
def mixture():
    return Mixture()


@pytest.fixture(scope="package")
def predicts_start():
    """A process of 1,000 steps whose network predicts x₀."""
    return GaussianDiffusion(schedules.linear(1000), predicts="x_start")
