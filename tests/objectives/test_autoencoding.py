import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from ditbook import rng
from ditbook.objectives.autoencoding import autoencoder_loss, kl


class Linear(nn.Module):
    """Encodes each pixel to a mean and a standard deviation, and decodes it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, 0.3, 1.2]))

    def encode(self, x):
        return self.weight[0] * x, (self.weight[1] * x).exp()

    def decode(self, z):
        return self.weight[2] * z


@pytest.mark.equation("15.3", of="ditbook.objectives.autoencoding.kl", against="torch.distributions")
def test_divergence_from_the_standard_normal():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64)
    std = torch.rand(5, 4, 3, 3, generator=generator, dtype=torch.float64) + 0.1
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).flatten(1).sum(dim=1)
    torch.testing.assert_close(kl(mean, std), expected)


@pytest.mark.equation("15.4", of="ditbook.objectives.autoencoding.autoencoder_loss", against="both terms by hand")
def test_the_loss_is_the_error_and_the_weighted_divergence():
    model, x = Linear(), torch.rand(2, 3, 4, 4)
    loss = autoencoder_loss(model, x, torch.Generator().manual_seed(1), kl_weight=0.01)
    mean, std = 0.7 * x, (0.3 * x).exp()
    noise = rng.randn(x.shape, torch.Generator().manual_seed(1), like=x)
    error = sum(abs(a - b) for a, b in zip((1.2 * (mean + std * noise)).flatten(), x.flatten(), strict=True)) / 96
    divergence = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum() / 2 / 48
    torch.testing.assert_close(loss, error + 0.01 * divergence)
    (gradient,) = torch.autograd.grad(loss, model.parameters())
    assert (gradient != 0).all()


def test_the_loss_runs_on_the_meta_device():
    loss = autoencoder_loss(Linear().to("meta"), torch.zeros(2, 3, 4, 4, device="meta"), torch.Generator(), 1e-6)
    assert loss.shape == ()
    assert loss.device.type == "meta"
