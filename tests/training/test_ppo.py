import itertools

import pytest
import torch
from torch import nn

from ditbook.data.tokenizer import BOS, EOS, PAD
from ditbook.models.gpt import GPT, ActorCritic, GPTConfig
from ditbook.objectives import policy as objectives
from ditbook.training import policies
from ditbook.training.loop import TrainConfig, train
from ditbook.training.ppo import PPOConfig, Rollouts, actor_critic_loss, divergence

CONFIG = GPTConfig(vocabulary=6, longest=8, width=16, depth=1, heads=2)
PROMPTS = torch.tensor([[4, 5, BOS], [PAD, 4, BOS], [PAD, 5, BOS]])


def reward(prompts, texts):
    """For ending at once."""
    return (texts[:, 0] == EOS).float()


def rollouts(**changes):
    torch.manual_seed(0)
    model, reference = ActorCritic(CONFIG), GPT(CONFIG)
    reference.load_state_dict(model.policy.state_dict())
    config = PPOConfig(**{"texts": 32, "minibatch": 8, "epochs": 2, "beta": 0.1} | changes)
    return Rollouts(model, reference, reward, PROMPTS, 4, config)


def test_the_ratio_is_one_before_any_update():
    data = rollouts()
    batch = data(torch.Generator().manual_seed(0))
    log_p = policies.token_log_probs(data.model.policy, batch["prompts"], batch["texts"])
    assert torch.equal((log_p - batch["log_p"]).exp(), torch.ones_like(log_p))


def test_each_text_comes_once_in_each_epoch_and_then_new_ones():
    data, generator = rollouts(), torch.Generator().manual_seed(0)
    batches = [data(generator) for _ in range(data.config.steps)]
    assert len(batches) == 8
    assert len(data.history) == 1
    epochs = [torch.cat([batch["advantages"] for batch in part]) for part in (batches[:4], batches[4:])]
    rows = [sorted(map(tuple, epoch.tolist())) for epoch in epochs]
    assert rows[0] == rows[1]
    assert not torch.equal(*epochs)
    data(generator)
    assert len(data.history) == 2


def test_a_rollout_is_what_its_parts_make_of_it():
    data = rollouts()
    torch.nn.init.normal_(data.reference.tokens.weight)  # so that there is a penalty
    batch = data.write(torch.Generator().manual_seed(0))
    mask = policies.written(batch["texts"])
    reference = policies.token_log_probs(data.reference, batch["prompts"], batch["texts"])
    scores = reward(batch["prompts"], batch["texts"])
    rewards = objectives.token_rewards(scores, batch["log_p"], reference, mask, 0.1)
    advantages, returns = objectives.advantages(rewards, batch["values"], mask)
    torch.testing.assert_close(batch["advantages"], advantages)
    torch.testing.assert_close(batch["returns"], returns)
    log_p = batch["log_p"].sum(dim=1) - reference.sum(dim=1)
    means = [scores.mean(), log_p.mean(), mask.sum(dim=1).float().mean()]
    torch.testing.assert_close(data.history[0], torch.stack(means))


def test_without_a_baseline_the_advantages_are_the_rewards_to_come():
    data = rollouts(baseline=False)
    batch = data.write(torch.Generator().manual_seed(0))
    ended_at_once = reward(batch["prompts"], batch["texts"])
    torch.testing.assert_close(batch["advantages"][:, 0], ended_at_once)  # no penalty yet: the policy is the reference


def test_the_loss_is_the_sum_of_its_parts():
    data = rollouts()
    batch = data(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in data.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    mask = policies.written(batch["texts"])
    log_p = policies.token_log_probs(data.model.policy, batch["prompts"], batch["texts"])
    values = policies.values(data.model.value, batch["prompts"], batch["texts"])
    value = objectives.value_loss(values, batch["values"], batch["returns"], mask, 0.2)
    policy = objectives.ppo_loss(log_p, batch["log_p"], batch["advantages"], mask, 0.2)
    torch.testing.assert_close(actor_critic_loss(data.model, batch, data.config), policy + 0.1 * value)
    plain = objectives.reinforce_loss(log_p, batch["advantages"], mask)
    config = PPOConfig(ratio=False)
    torch.testing.assert_close(actor_critic_loss(data.model, batch, config), plain + 0.1 * value)


def test_ppo_learns_what_is_rewarded():
    data = rollouts(beta=0.0, texts=64, minibatch=32)
    training = TrainConfig(steps=120, learning_rate=3e-3, warmup_steps=1, ema_decay=0.0)
    train(data.model, lambda m, b, _: actor_critic_loss(m, b, data.config), data, training)
    first, last = data.history[0][0].item(), data.history[-1][0].item()
    assert first < 0.4
    assert last > 0.9


def test_the_divergence_is_that_of_all_texts():
    torch.manual_seed(0)
    policy, reference = GPT(CONFIG), GPT(CONFIG)
    for model in (policy, reference):
        nn.init.normal_(model.tokens.weight, std=0.3)
    texts = torch.tensor(list(itertools.product(range(1, 6), repeat=2)))
    texts = texts[texts[:, 0] != EOS]
    texts = torch.cat([texts, torch.tensor([[EOS, PAD]])])
    prompts = PROMPTS[:1].expand(len(texts), -1)
    logits = [policies.logits(model, prompts, texts).detach() for model in (policy, reference)]
    for part in logits:
        part[..., PAD] = -30.0  # not written here
    log_p = [
        part.log_softmax(-1).gather(-1, texts[..., None])[..., 0].masked_fill(texts == PAD, 0).sum(1) for part in logits
    ]
    expected = (log_p[0].exp() * (log_p[0] - log_p[1])).sum()
    assert log_p[0].exp().sum().item() == pytest.approx(1, abs=1e-5)
    found = objectives.kl(*logits, texts != PAD)
    torch.testing.assert_close((log_p[0].exp() * found).sum(), expected, atol=1e-5, rtol=1e-4)
    same = divergence(policy, policy, prompts, texts)
    torch.testing.assert_close(same, torch.zeros(len(texts)), atol=1e-6, rtol=0)
    assert (divergence(policy, reference, prompts, texts) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"texts": 10, "minibatch": 4}, "texts must be a multiple of minibatch"), ({"clip": 0.0}, "clips must be")],
)
def test_wrong_hyperparameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**changes)
