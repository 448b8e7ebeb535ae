import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from ditbook.objectives.preference import (
    best_of_n,
    best_of_n_kl,
    bradley_terry_loss,
    dpo_loss,
    implicit_reward,
    log_probs,
)


def generator():
    return torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, generator=generator(), dtype=torch.float64)


@pytest.mark.equation("6.2", of="ditbook.objectives.preference.log_probs", against="torch.distributions.Categorical")
def test_the_log_probability_of_a_text_is_the_sum_over_its_tokens():
    logits, tokens = normal(2, 4, 5), torch.tensor([[1, 4, 2, 0], [3, 0, 0, 0]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    found = log_probs(logits, tokens, mask)
    for b, length in enumerate((3, 2)):
        each = [Categorical(logits=logits[b, t]).log_prob(tokens[b, t]) for t in range(length)]
        torch.testing.assert_close(found[b, :length], torch.stack(each))
    assert found[~mask].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"tokens \(2, 3\)"):
        log_probs(logits, tokens[:, :3], mask)


def test_probabilities_of_all_texts_sum_to_one():
    step = normal(3).log_softmax(0)
    texts = torch.tensor(list(itertools.product(range(3), repeat=3)))
    total = log_probs(step.expand(27, 3, 3), texts, torch.ones_like(texts, dtype=torch.bool)).sum(dim=1).exp().sum()
    assert total.item() == pytest.approx(1)


@pytest.mark.equation(
    "6.3", of="ditbook.objectives.preference.bradley_terry_loss", against="torch.distributions.Bernoulli"
)
def test_the_loss_of_comparisons_is_that_of_coins():
    first, second, preferred = normal(6), normal(6).flip(0), torch.tensor([1, 0, 1, 0, 1, 0.0]).double()
    first.requires_grad_()
    loss = bradley_terry_loss(first, second, preferred)
    torch.testing.assert_close(loss, -Bernoulli(logits=first - second).log_prob(preferred).mean())
    (gradient,) = torch.autograd.grad(loss, first)
    torch.testing.assert_close(gradient, (torch.sigmoid(first - second) - preferred).detach() / 6)
    shifted = bradley_terry_loss(first + 7, second + 7, preferred)
    torch.testing.assert_close(shifted, loss)
    with pytest.raises(ValueError, match=r"shapes \(6,\), \(5,\) and \(6,\)"):
        bradley_terry_loss(first, second[:5], preferred)


def test_a_tie_is_half_a_victory_for_each():
    first, second = normal(4), normal(4) + 0.3
    tie = bradley_terry_loss(first, second, torch.full((4,), 0.5).double())
    both = [bradley_terry_loss(first, second, torch.full((4,), won).double()) for won in (0.0, 1.0)]
    torch.testing.assert_close(tie, sum(both) / 2)


def test_scores_far_apart_give_a_finite_loss():
    far = torch.tensor([1000.0])
    assert bradley_terry_loss(far, -far, torch.ones(1)).item() == 0
    assert bradley_terry_loss(far, -far, torch.zeros(1)).item() == 2000


@pytest.mark.equation("6.4", of="ditbook.objectives.preference.best_of_n_kl", against="counting all choices of n texts")
@pytest.mark.equation("6.5", of="ditbook.objectives.preference.best_of_n_kl", against="enumeration, Monte Carlo")
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_divergence_of_the_best_of_n(n):
    """Of K equally likely texts the best of n has rank k with probability (k/K)ⁿ − ((k − 1)/K)ⁿ."""
    K = 12
    wins = torch.zeros(K, dtype=torch.float64)
    for chosen in itertools.product(range(K), repeat=n):
        wins[max(chosen)] += 1 / K**n
    ranks = torch.arange(1, K + 1, dtype=torch.float64)
    torch.testing.assert_close(wins, (ranks / K) ** n - ((ranks - 1) / K) ** n)  # (6.4), for finitely many
    many = torch.arange(1, 100_001, dtype=torch.float64) / 100_000
    wins = many**n - (many - 1e-5) ** n
    exact = (wins * (wins * 100_000).log()).sum().item()
    assert best_of_n_kl(n) == pytest.approx(exact, abs=1e-4)
    best = torch.rand(200_000, n, generator=generator(), dtype=torch.float64).amax(dim=1)  # scores as quantiles
    assert (n * best ** (n - 1)).log().mean().item() == pytest.approx(best_of_n_kl(n), abs=0.01)


def test_where_texts_have_probabilities_it_is_a_bound():
    p = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)  # from the worst to the best; the last two tie
    below = p.cumsum(0)
    for n in (2, 4, 16, 256):
        best = torch.cat([below.new_zeros(1), below]).pow(n).diff()
        tied = torch.cat([best[:3], best[3:].sum() * p[3:] / p[3:].sum()])
        exact, with_a_tie = ((q * (q / p).log()).sum().item() for q in (best, tied))
        assert with_a_tie < exact < best_of_n_kl(n)


@pytest.mark.parametrize(("n", "nats"), [(4, 0.64), (16, 1.84), (64, 3.17), (1000, 5.91), (60_000, 10.0)])
def test_divergences_of_a_few_n(n, nats):
    assert best_of_n_kl(n) == pytest.approx(nats, abs=5e-3)


def test_there_is_no_best_of_none():
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        best_of_n_kl(0)


@pytest.mark.equation("6.6", of="ditbook.objectives.preference.best_of_n", against="all subsets")
def test_the_best_of_n_for_all_n_is_the_mean_over_all_subsets():
    scores, values = normal(2, 7), normal(2, 7).flip(1)
    found = best_of_n(scores, values)
    for b in range(2):
        for n in range(1, 8):
            subsets = list(itertools.combinations(range(7), n))
            best = [values[b, max(subset, key=lambda i: scores[b, i].item())].item() for subset in subsets]
            assert found[b, n - 1].item() == pytest.approx(sum(best) / len(subsets))
    with pytest.raises(ValueError, match=r"scores \(2, 7\) and values \(2, 6\)"):
        best_of_n(scores, values[:, :6])


def test_the_best_of_many_does_not_overflow():
    scores = torch.linspace(0, 1, 1000, dtype=torch.float64)
    found = best_of_n(scores, scores)
    n = torch.arange(1, 1001, dtype=torch.float64)
    torch.testing.assert_close(found, (n * 1001 / (n + 1) - 1) / 999)  # mean of the largest of n ranks


@pytest.mark.equation(
    "6.19", of="ditbook.objectives.preference.dpo_loss", against="its closed form and the paper's gradient"
)
def test_the_loss_of_dpo_is_its_closed_form():
    policy, reference = normal(2, 5).requires_grad_(), normal(2, 5).flip(0)
    preferred = torch.tensor([1, 1, 0, 1, 0.0]).double()
    loss = dpo_loss(tuple(policy), tuple(reference), preferred, beta=0.3)
    sign = 2 * preferred - 1
    chosen, rejected = (torch.where(preferred == won, *(policy - reference)) for won in (1, 0))
    torch.testing.assert_close(loss, -torch.log(1 / (1 + torch.exp(-0.3 * (chosen - rejected)))).mean())
    (gradient,) = torch.autograd.grad(loss, policy)  # Rafailov et al. 2023, the gradient below equation 7
    weight = torch.sigmoid(-0.3 * (chosen - rejected)).detach() * 0.3 / 5
    torch.testing.assert_close(gradient, torch.stack([-sign * weight, sign * weight]))


def test_dpo_starts_at_log_two():
    same = (normal(3), normal(3).flip(0))
    assert dpo_loss(same, same, torch.ones(3).double(), beta=0.1).item() == pytest.approx(math.log(2))


@pytest.mark.equation(
    "6.17", of="ditbook.objectives.preference.implicit_reward", against="gradient ascent over all policies"
)
@pytest.mark.equation(
    "6.18", of="ditbook.objectives.preference.implicit_reward", against="the optimum of enumerated texts"
)
def test_the_implicit_reward_of_the_best_policy_is_the_reward():
    """The objective is maximized by ascent, without the closed form; rewards then differ by a constant."""
    reward, reference, beta = normal(6), normal(6).flip(0).log_softmax(0), 0.7
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def objective():
        penalty = kl_divergence(Categorical(logits=logits), Categorical(logits=reference))
        return (logits.softmax(0) * reward).sum() - beta * penalty

    def closure():
        optimizer.zero_grad()
        loss = -objective()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = logits.detach().log_softmax(0)
    tilted = (reference + reward / beta).log_softmax(0)
    torch.testing.assert_close(found, tilted, atol=1e-5, rtol=0)  # (6.17)
    difference = implicit_reward(found, reference, beta) - reward
    torch.testing.assert_close(difference, difference.mean().expand(6), atol=1e-5, rtol=0)
    log_sum = torch.logsumexp(reference + reward / beta, dim=0)
    assert difference.mean().item() == pytest.approx(-beta * log_sum.item(), abs=1e-5)
    assert objective().item() == pytest.approx(beta * log_sum.item(), abs=1e-8)


def test_all_run_on_the_meta_device():
    with torch.device("meta"):
        logits, tokens, mask = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3).bool()
        assert log_probs(logits, tokens, mask).shape == (2, 3)
        pair = (torch.zeros(2), torch.zeros(2))
        assert dpo_loss(pair, pair, torch.ones(2), beta=0.1).shape == ()
        assert best_of_n(torch.zeros(2, 3), torch.zeros(2, 3)).shape == (2, 3)
