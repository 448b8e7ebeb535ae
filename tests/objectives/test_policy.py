import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from ditbook.objectives.policy import (
    advantages,
    kl,
    masked_mean,
    ppo_loss,
    reinforce_loss,
    token_rewards,
    value_loss,
)

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])
TEXTS = torch.tensor(list(itertools.product(range(3), repeat=2)))  # all texts of two of three tokens
ALL = torch.ones_like(TEXTS, dtype=torch.bool)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_p(logits):
    """Of the tokens of all texts, under a policy whose second token depends on the first: logits (4, 3) → (9, 2)."""
    steps = logits.log_softmax(dim=-1)
    return torch.stack([steps[3, TEXTS[:, 0]], steps[TEXTS[:, 0], TEXTS[:, 1]]], dim=1)


def test_the_mean_counts_each_token_once_and_no_padding():
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, torch.nan, 8]])
    assert masked_mean(x, MASK).item() == pytest.approx((1 + 2 + 3 + 4 + 5 + 6) / 6)


@pytest.mark.equation(
    "6.7", of="ditbook.objectives.policy.reinforce_loss", against="derivative of the enumerated expected reward"
)
def test_the_gradient_is_that_of_the_expected_reward():
    """Texts in proportion to their probabilities: the sum over all of them is weighted instead of sampled."""
    logits, reward = normal(4, 3).requires_grad_(), normal(9, seed=1)
    p = log_p(logits).sum(dim=1).exp()
    (expected,) = torch.autograd.grad((p * reward).sum(), logits)
    found = torch.zeros_like(expected)
    for text in range(9):
        row = slice(text, text + 1)
        loss = reinforce_loss(log_p(logits)[row], reward[row, None].expand(1, 2), ALL[row])
        found -= 2 * p[text].detach() * torch.autograd.grad(loss, logits)[0]  # a mean over two tokens
    torch.testing.assert_close(found, expected)


@pytest.mark.equation("6.8", of="ditbook.objectives.policy.reinforce_loss", against="sum over all texts")
def test_a_baseline_changes_nothing_in_the_mean():
    """Any function of what stands before a token has a gradient of zero."""
    logits, baseline = normal(4, 3).requires_grad_(), normal(4, seed=1)
    p = log_p(logits).sum(dim=1).exp().detach()
    before = torch.stack([baseline[3].expand(9), baseline[TEXTS[:, 0]]], dim=1)
    loss = sum(p[i] * reinforce_loss(log_p(logits)[i : i + 1], before[i : i + 1], ALL[i : i + 1]) for i in range(9))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.equation("6.15", of="ditbook.objectives.policy.token_rewards", against="a loop over tokens")
def test_the_score_lands_on_the_last_token_and_each_token_pays():
    scores, now, before = normal(2), normal(2, 4), normal(2, 4, seed=1)
    found = token_rewards(scores, now, before, MASK, beta=0.3)
    for b, length in enumerate((4, 2)):
        for t in range(4):
            expected = -0.3 * (now[b, t] - before[b, t]) + (scores[b] if t == length - 1 else 0)
            assert found[b, t].item() == pytest.approx(expected.item() if t < length else 0)
    pads = now + torch.where(MASK, 0, 100)  # what stands in the padding does not count
    assert torch.equal(token_rewards(scores, pads, before, MASK, beta=0.3), found)


def test_the_score_reaches_the_advantage_of_the_last_token_alone_without_decay():
    rewards = token_rewards(torch.tensor([5.0, 7.0]), torch.zeros(2, 4), torch.zeros(2, 4), MASK, beta=0.1)
    found, _ = advantages(rewards, torch.zeros(2, 4), MASK, decay=0.0)
    assert found.tolist() == [[0, 0, 0, 5], [0, 7, 0, 0]]
    found, _ = advantages(rewards, torch.zeros(2, 4), MASK, decay=1.0)
    assert found.tolist() == [[5, 5, 5, 5], [7, 7, 0, 0]]


@pytest.mark.equation("6.9", of="ditbook.objectives.policy.advantages", against="the double sum, term by term")
@pytest.mark.equation("6.10", of="ditbook.objectives.policy.advantages", against="the double sum, term by term")
@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.8), (0.9, 0.0), (1.0, 1.0)])
def test_advantages_are_the_double_sum(discount, decay):
    """The mean over k of the k-step estimates with weights (1 − λ) λ^(k − 1), the last taking what is left."""
    rewards, values = normal(2, 4), normal(2, 4, seed=1)
    found, returns = advantages(rewards, values, MASK, discount=discount, decay=decay)
    for b, length in enumerate((4, 2)):
        for t in range(length):
            total, steps = 0.0, length - t
            for k in range(1, steps + 1):
                estimate = sum(discount**i * rewards[b, t + i].item() for i in range(k))
                estimate += discount**k * values[b, t + k].item() if t + k < length else 0
                weight = (1 - decay) * decay ** (k - 1) if k < steps else decay ** (k - 1)
                total += weight * (estimate - values[b, t].item())
            assert found[b, t].item() == pytest.approx(total)
            assert returns[b, t].item() == pytest.approx(total + values[b, t].item())
    assert found[~MASK].tolist() == returns[~MASK].tolist() == [0, 0]


def test_wrong_discounts_are_refused():
    with pytest.raises(ValueError, match=r"discount and decay must be in \[0, 1\], got 1.0 and 1.5"):
        advantages(normal(2, 4), normal(2, 4), MASK, decay=1.5)


@pytest.mark.equation("6.11", of="ditbook.objectives.policy.ppo_loss", against="every case of sign and clip")
@pytest.mark.equation("6.12", of="ditbook.objectives.policy.ppo_loss", against="every case of sign and clip")
@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.0, -2.0, -2.0, -2.0),
        (1.1, 2.0, 2.2, 2.2),
        (1.1, -2.0, -2.2, -2.2),
        (1.5, 2.0, 2.4, 0.0),  # a good token made likelier: no more to gain
        (1.5, -2.0, -3.0, -3.0),  # a bad token made likelier: undone without limit
        (0.5, 2.0, 1.0, 1.0),  # a good token made rarer: undone without limit
        (0.5, -2.0, -1.6, 0.0),  # a bad token made rarer: no more to gain
        (0.9, 2.0, 1.8, 1.8),
        (0.9, -2.0, -1.8, -1.8),
    ],
)
def test_the_clipped_objective(ratio, advantage, gain, slope):
    now = torch.tensor([[math.log(ratio) - 1.0]], dtype=torch.float64, requires_grad=True)
    old, A = torch.full((1, 1), -1.0, dtype=torch.float64), torch.tensor([[advantage]], dtype=torch.float64)
    loss = ppo_loss(now, old, A, torch.ones(1, 1, dtype=torch.bool), clip=0.2)
    assert loss.item() == pytest.approx(-gain)
    (gradient,) = torch.autograd.grad(loss, now)
    assert gradient.item() == pytest.approx(-slope)  # of the ratio by the log-probability: the ratio


def test_before_any_update_the_gradient_is_that_of_reinforce():
    now, A = normal(2, 4).requires_grad_(), normal(2, 4, seed=1)
    first, second = ppo_loss(now, now.detach(), A, MASK, clip=0.2), reinforce_loss(now, A, MASK)
    torch.testing.assert_close(*(torch.autograd.grad(loss, now)[0] for loss in (first, second)))
    unclipped = ppo_loss(now, now.detach() - 3, A, MASK, clip=math.inf)
    torch.testing.assert_close(unclipped, -masked_mean(math.e**3 * A, MASK))


def test_padding_does_not_reach_the_losses():
    now, old, A = normal(2, 4), normal(2, 4, seed=1), normal(2, 4, seed=2)
    noise = torch.where(MASK, 0, 5.0)
    for loss in (
        lambda x: ppo_loss(now + x, old, A, MASK, 0.2),
        lambda x: reinforce_loss(now + x, A, MASK),
        lambda x: value_loss(now + x, old, A, MASK, 0.2),
    ):
        torch.testing.assert_close(loss(noise), loss(0))


@pytest.mark.equation("6.13", of="ditbook.objectives.policy.value_loss", against="every case of side and clip")
@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.1, 2.0, 0.405, -0.9),  # inside the clip
        (1.5, 2.0, 0.32, 0.0),  # nearer to the target than the clip allows: no gain
        (1.5, 0.0, 1.125, 1.5),  # away from the target: undone without limit
        (0.5, 2.0, 1.125, -1.5),
        (0.5, 0.0, 0.32, 0.0),
    ],
)
def test_the_clipped_loss_of_values(value, target, loss, slope):
    found = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    old, target = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[target]], dtype=torch.float64)
    error = value_loss(found, old, target, torch.ones(1, 1, dtype=torch.bool), clip=0.2)
    assert error.item() == pytest.approx(loss)
    assert torch.autograd.grad(error, found)[0].item() == pytest.approx(slope)


@pytest.mark.equation("6.16", of="ditbook.objectives.policy.kl", against="sum over all texts")
def test_the_divergence_of_tokens_adds_up_to_that_of_texts():
    policy, reference = normal(4, 3), normal(4, 3, seed=1)
    logits = [torch.stack([x[3].expand(9, 3), x[TEXTS[:, 0]]], dim=1) for x in (policy, reference)]
    whole = [log_p(x).sum(dim=1) for x in (policy, reference)]
    expected = kl_divergence(Categorical(logits=whole[0]), Categorical(logits=whole[1]))
    found = (whole[0].exp() * kl(*logits, ALL)).sum()
    torch.testing.assert_close(found, expected)
    short = kl(*logits, torch.tensor([[True, False]]).expand(9, 2))
    first = kl_divergence(Categorical(logits=policy[3]), Categorical(logits=reference[3]))
    torch.testing.assert_close(short, first.expand(9))


def test_all_run_on_the_meta_device():
    with torch.device("meta"):
        x, mask = torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool)
        rewards = token_rewards(torch.zeros(2), x, x, mask, beta=0.1)
        found, returns = advantages(rewards, x, mask)
        assert found.shape == returns.shape == (2, 4)
        assert ppo_loss(x, x, found, mask, 0.2).shape == value_loss(x, x, returns, mask, 0.2).shape == ()
        assert kl(torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), mask).shape == (2,)
