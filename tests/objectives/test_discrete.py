import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from ditbook.models.dvae import DVAE, DVAEConfig
from ditbook.objectives import discrete

SMALL = {"vocabulary": 11, "width": 8, "start": 6, "groups": 2, "blocks": 1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images():
    return torch.rand(3, 3, 8, 8, generator=seeded()) * 2 - 1


@pytest.mark.equation(
    "9.7", of="ditbook.objectives.discrete.divergence_from_uniform", against="torch.distributions; both ends"
)
def test_the_divergence_from_uniform():
    logits = torch.randn(2, 5, 3, 4, generator=seeded())
    q, p = Categorical(logits=logits.movedim(1, -1)), Categorical(logits=torch.zeros(2, 3, 4, 5))
    torch.testing.assert_close(discrete.divergence_from_uniform(logits), kl_divergence(q, p))
    assert discrete.divergence_from_uniform(torch.zeros(1, 5, 1, 1)).item() == pytest.approx(0, abs=1e-6)
    sure = torch.tensor([99.0, 0, 0, 0, 0]).view(1, 5, 1, 1)
    assert discrete.divergence_from_uniform(sure).item() == pytest.approx(math.log(5))


@pytest.mark.equation(
    "9.8", of="ditbook.objectives.discrete.relaxed_loss", against="sums over an image, divided as the paper does"
)
def test_the_relaxed_loss_is_the_papers():
    torch.manual_seed(0)
    model, x = DVAE(DVAEConfig(**SMALL)), images()
    loss = discrete.relaxed_loss(model, x, 0.5, 6.6, seeded(1))
    logits = model.encode(x)
    nats = model.nats(x, model.relax(logits, 0.5, seeded(1))).flatten(1).sum(dim=1)
    divergence = discrete.divergence_from_uniform(logits).flatten(1).sum(dim=1)
    torch.testing.assert_close(loss, ((nats + 6.6 * divergence) / (8 * 8 * 3)).mean())


def test_the_weight_of_a_token_at_the_papers_size():
    # A mean over 32·32 positions weighs β/192 where the sum is divided by 256·256·3.
    per_number = 6.6 * 32 * 32 / (256 * 256 * 3)
    assert per_number == pytest.approx(0.0344, abs=5e-5)


@pytest.mark.equation("9.10", of="ditbook.objectives.discrete.quantized_loss", against="its three terms one by one")
def test_the_quantized_loss_has_three_terms():
    torch.manual_seed(0)
    model, x = DVAE(DVAEConfig(**SMALL, code_width=4)), images()
    z = model.vectors(x)
    chosen = model.quantizer.lookup(model.encode(x).argmax(dim=1))
    wanted = model.nats(x, chosen).mean() + 1.25 * (z - chosen).square().mean()
    torch.testing.assert_close(discrete.quantized_loss(model, x, 0.25), wanted)
    discrete.quantized_loss(model, x, 0.25).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_annealing_follows_half_a_cosine():
    values = [discrete.cosine_anneal(step, 100, 1.0, 1 / 16) for step in (0, 50, 100, 500)]
    assert values == pytest.approx([1.0, (1 + 1 / 16) / 2, 1 / 16, 1 / 16])
    assert discrete.cosine_anneal(25, 100, 1.0, 0.0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
