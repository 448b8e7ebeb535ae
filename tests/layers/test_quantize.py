import pytest
import torch
import torch.nn.functional as F

from ditbook.layers import quantize
from ditbook.layers.quantize import VectorQuantizer


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0])


@pytest.mark.equation("9.1", of="ditbook.layers.quantize.gumbel_softmax", against="frequencies against the softmax")
def test_the_largest_noisy_logit_is_a_sample_of_the_softmax():
    many = LOGITS.expand(200_000, 4)
    samples = quantize.gumbel_softmax(many, 1.0, seeded(), hard=True)
    assert (samples.sum(dim=1) == 1).all()
    torch.testing.assert_close(samples.mean(dim=0), LOGITS.softmax(dim=0), atol=4e-3, rtol=0)


@pytest.mark.equation("9.2", of="ditbook.layers.quantize.gumbel_softmax", against="torch's RelaxedOneHotCategorical")
def test_relaxed_samples_have_the_concrete_density():
    # E[w_k] has no closed form; torch's own sampler gives the same means and second moments.
    many = LOGITS.expand(200_000, 4)
    torch.manual_seed(1)
    theirs = torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.7), logits=many).sample()
    ours = quantize.gumbel_softmax(many, 0.7, seeded())
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(len(many)))
    torch.testing.assert_close(ours.mean(dim=0), theirs.mean(dim=0), atol=4e-3, rtol=0)
    torch.testing.assert_close(ours.T @ ours / len(many), theirs.T @ theirs / len(many), atol=4e-3, rtol=0)


def test_a_cold_sample_is_nearly_one_hot_and_a_wrong_temperature_is_refused():
    many = LOGITS.expand(1000, 4)
    cold, hard = (quantize.gumbel_softmax(many, 0.01, seeded(), hard=hard) for hard in (False, True))
    assert (cold.argmax(dim=1) == hard.argmax(dim=1)).all()
    assert cold.amax(dim=1).mean() > 0.98
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        quantize.gumbel_softmax(many, 0, seeded())


@pytest.mark.equation("9.3", of="ditbook.layers.quantize.straight_through", against="value and gradient apart")
def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    soft = torch.tensor([0.2, 0.8], requires_grad=True)
    hard = torch.tensor([0.0, 1.0], requires_grad=True)
    out = quantize.straight_through(hard, soft)
    torch.testing.assert_close(out, hard)
    out.backward(torch.tensor([3.0, 5.0]))
    assert hard.grad is None
    assert soft.grad.tolist() == [3.0, 5.0]


def test_the_hard_sample_has_the_gradient_of_the_soft_one():
    soft, hard = LOGITS.expand(5, 4).clone().requires_grad_(), LOGITS.expand(5, 4).clone().requires_grad_()
    values = torch.arange(4.0)
    (quantize.gumbel_softmax(soft, 0.5, seeded()) @ values).sum().backward()
    (quantize.gumbel_softmax(hard, 0.5, seeded(), hard=True) @ values).sum().backward()
    torch.testing.assert_close(hard.grad, soft.grad)


def quantizer(codes=7, width=3):
    torch.manual_seed(0)
    return VectorQuantizer(codes, width), torch.randn(2, width, 4, 5)


@pytest.mark.equation("9.9", of="ditbook.layers.quantize.VectorQuantizer.forward", against="torch.cdist")
def test_the_nearest_code_takes_the_place_of_a_vector():
    layer, z = quantizer()
    vectors, book = z.movedim(1, -1).reshape(-1, 3), layer.codebook.weight
    distances = torch.cdist(vectors, book)
    torch.testing.assert_close(layer.similarities(z).movedim(1, -1).reshape(-1, 7), -distances.square())
    codes, _ = layer(z)
    torch.testing.assert_close(codes.movedim(1, -1).reshape(-1, 3), book[distances.argmin(dim=1)])


@pytest.mark.equation("9.10", of="ditbook.layers.quantize.VectorQuantizer.forward", against="gradients written out")
def test_the_two_distances_have_one_value_and_two_gradients():
    layer, z = quantizer()
    z.requires_grad_()
    codes, (to_codebook, to_encoder) = layer(z)
    chosen = layer.lookup(layer.similarities(z).argmax(dim=1))
    torch.testing.assert_close(to_codebook, (z - chosen).square().mean())
    torch.testing.assert_close(to_codebook, to_encoder)
    (by_z,) = torch.autograd.grad(to_encoder, z, retain_graph=True)
    torch.testing.assert_close(by_z, 2 * (z - chosen) / z.numel())
    (by_book,) = torch.autograd.grad(to_codebook, layer.codebook.weight, retain_graph=True)
    tokens = layer.similarities(z).argmax(dim=1).flatten()
    wanted = torch.zeros_like(by_book).index_add(0, tokens, (2 * (chosen - z) / z.numel()).movedim(1, -1).flatten(0, 2))
    torch.testing.assert_close(by_book, wanted)
    (straight,) = torch.autograd.grad(codes.square().sum(), z)  # the gradient passes the quantizer unchanged
    torch.testing.assert_close(straight, 2 * codes)


def test_chosen_codes_become_vectors_of_the_data():
    layer, z = quantizer()
    before = layer.codebook.weight.clone()
    chosen = torch.tensor([True, False, True, False, False, False, False])
    layer.replace(chosen, z, seeded())
    after, vectors = layer.codebook.weight, z.movedim(1, -1).reshape(-1, 3)
    assert torch.equal(after[~chosen], before[~chosen])
    assert (after[chosen][:, None] == vectors).all(dim=2).any(dim=1).all()


@pytest.mark.equation("9.11", of="ditbook.layers.quantize.perplexity", against="cases known in closed form")
def test_perplexity_counts_codes_in_equal_use():
    even = quantize.counts(torch.arange(6).repeat(5).view(5, 6), 9)
    assert even.tolist() == [5] * 6 + [0] * 3
    assert quantize.perplexity(even).item() == pytest.approx(6)
    assert quantize.perplexity(torch.tensor([4, 0])).item() == pytest.approx(1)
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert quantize.perplexity(4 * p).item() == pytest.approx(2**1.5)  # of 1.5 bits


def test_one_hot_puts_the_codes_first():
    assert torch.equal(
        quantize.one_hot(torch.tensor([[2, 0]]), 3), F.one_hot(torch.tensor([[2, 0]]), 3).permute(0, 2, 1)
    )
