"""FID and IS against torchmetrics, with a small network in the place of Inception."""

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from ditbook.metrics.fid import frechet, statistics
from ditbook.metrics.inception_score import inception_score
from ditbook.metrics.kid import mmd


class Small(nn.Module):
    """Features of bytes, as torchmetrics hands them over."""

    num_features = 5

    def forward(self, x):
        x = x.float() / 255
        return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))[:, :2]], dim=1).double()


def images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    bright = torch.rand(n, 3, 1, 1, generator=generator) * 255
    return (bright * torch.rand(n, 3, 8, 8, generator=generator)).to(torch.uint8)


@pytest.fixture
def small():
    return Small()


def test_fid(small):
    real, generated = images(300, 0), images(200, 1) // 2
    theirs = FrechetInceptionDistance(feature=small, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    for part in real.split(70):
        theirs.update(part, real=True)
    theirs.update(generated, real=False)
    ours = frechet(*(statistics(small, x, batch_size=70) for x in (real, generated)))
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-5)


def test_kid(small):
    real, generated = images(90, 0), images(90, 1) // 2
    theirs = KernelInceptionDistance(feature=small, subsets=2, subset_size=90)  # all images: both subsets are the same
    theirs.update(real, real=True)
    theirs.update(generated, real=False)
    assert mmd(small(real), small(generated)).item() == pytest.approx(theirs.compute()[0].item(), rel=1e-5)


def test_inception_score():
    torch.manual_seed(0)
    logits = 3 * torch.randn(200, 6, dtype=torch.float64)

    class Given(nn.Module):
        num_features = 6

        def forward(self, x):
            return logits

    theirs = InceptionScore(feature=Given(), splits=1)
    theirs.update(torch.zeros(200, 3, 8, 8, dtype=torch.uint8))
    assert inception_score(logits.softmax(dim=1), splits=1)[0] == pytest.approx(theirs.compute()[0].item(), rel=1e-5)
