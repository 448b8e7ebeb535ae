"""PPO for a policy that writes texts: rollouts, and the loss of a minibatch of them.

`Rollouts` is the data of `training.loop.train`: it writes new texts with the policy in training whenever the last ones
are used up.

Letters: `B` batch, `P` tokens of a prompt, `T` tokens of a text, `N` prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook import rng
from ditbook.layers.checks import check_types
from ditbook.models.gpt import GPT, ActorCritic
from ditbook.objectives import policy as objectives
from ditbook.training import policies
from ditbook.training.loop import Batch

Reward = Callable[[Tensor, Tensor], Tensor]  # prompts (B, P) and texts (B, T) → the score of each text, (B,)


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Hyperparameters of PPO. Three of its parts can be left out, to measure what they do.

    Raises:
        ValueError: a value out of range.

    Source: Stiennon et al. 2020, appendix B.1, for discount, decay and epochs; Ziegler et al. 2019, code, for clips.
    """

    beta: float = 0.05  # weight of the KL penalty, in points per nat
    texts: int = 256  # of a rollout
    minibatch: int = 64  # texts of a step of the optimizer
    epochs: int = 4  # how often each text is used
    discount: float = 1.0
    decay: float = 0.95  # λ
    clip: float = 0.2  # of the ratio; infinite for no clipping
    value_clip: float = 0.2
    value_weight: float = 0.1
    baseline: bool = True  # without it the advantages are the rewards to come
    ratio: bool = True  # without it the gradient is that of the texts of the first epoch, in all epochs

    def __post_init__(self) -> None:
        check_types(self)
        if self.texts < 1 or self.minibatch < 1 or self.texts % self.minibatch or self.epochs < 1:
            given = f"{self.texts}, {self.minibatch} and {self.epochs}"
            raise ValueError(f"texts must be a multiple of minibatch, and all positive with epochs, got {given}")
        if self.beta < 0 or self.clip <= 0 or self.value_clip <= 0 or self.value_weight < 0:
            given = f"{self.beta}, {self.clip}, {self.value_clip} and {self.value_weight}"
            raise ValueError(f"clips must be positive, beta and value_weight not negative, got {given}")

    @property
    def steps(self) -> int:
        """Steps of the optimizer for a rollout."""
        return self.epochs * self.texts // self.minibatch


class Rollouts:
    """Minibatches of texts that the policy in training has written.

    Args:
        model: in training, with policy and value network.
        reference: the policy from which the KL penalty holds; it is not trained.
        reward: of a text; the model in training has no part in it.
        prompts: (N, P), padded on the left.
        longest: tokens of a text, T.
        config: hyperparameters.
    """

    def __init__(
        self, model: ActorCritic, reference: GPT, reward: Reward, prompts: Tensor, longest: int, config: PPOConfig
    ) -> None:
        self.model, self.reference, self.reward, self.config = model, reference, reward, config
        self.prompts, self.longest = prompts, longest
        self.waiting: list[Batch] = []  # minibatches that are not used yet
        self.history: list[Tensor] = []  # for each rollout the means of score, KL estimate and length, (3,)

    def __call__(self, generator: torch.Generator) -> Batch:
        """The next minibatch; after `config.steps` of them a new rollout."""
        if not self.waiting:
            rollout = self.write(generator)
            for _ in range(self.config.epochs):
                order = torch.randperm(self.config.texts, generator=generator)
                parts = rng.moved(order, self.prompts.device).split(self.config.minibatch)
                self.waiting += [{name: tensor[rows] for name, tensor in rollout.items()} for rows in parts]
        return self.waiting.pop(0)

    @torch.no_grad()
    def write(self, generator: torch.Generator) -> Batch:
        """Texts for prompts sampled with replacement, and all that the loss needs, each (B, T)."""
        config = self.config
        rows = rng.randint(len(self.prompts), (config.texts,), generator, self.prompts.device)
        prompts = self.prompts[rows]
        texts = policies.write(self.model.policy, prompts, self.longest, generator)
        mask = policies.written(texts)
        log_p, reference = (policies.token_log_probs(p, prompts, texts) for p in (self.model.policy, self.reference))
        scores = self.reward(prompts, texts)
        rewards = objectives.token_rewards(scores, log_p, reference, mask, config.beta)
        values = policies.values(self.model.value, prompts, texts).masked_fill(~mask, 0)
        decay = config.decay if config.baseline else 1.0
        baseline = values if config.baseline else torch.zeros_like(values)
        advantages, returns = objectives.advantages(rewards, baseline, mask, discount=config.discount, decay=decay)
        penalty = (log_p - reference).sum(dim=1)
        self.history.append(torch.stack([scores.mean(), penalty.mean(), mask.sum(dim=1).float().mean()]))
        batch = {"prompts": prompts, "texts": texts, "log_p": log_p, "values": values}
        return batch | {"advantages": advantages, "returns": returns}


def actor_critic_loss(model: ActorCritic, batch: Batch, config: PPOConfig) -> Tensor:
    """PPO's loss of a minibatch: of the policy, and of the value network."""
    prompts, texts = batch["prompts"], batch["texts"]
    mask = policies.written(texts)
    log_p = policies.token_log_probs(model.policy, prompts, texts)
    if config.ratio:
        policy = objectives.ppo_loss(log_p, batch["log_p"], batch["advantages"], mask, config.clip)
    else:
        policy = objectives.reinforce_loss(log_p, batch["advantages"], mask)
    values = policies.values(model.value, prompts, texts)
    value = objectives.value_loss(values, batch["values"], batch["returns"], mask, config.value_clip)
    return policy + config.value_weight * value


@torch.no_grad()
def divergence(policy: GPT, reference: GPT, prompts: Tensor, texts: Tensor) -> Tensor:
    """Divergence in nats along texts of the policy, (B,); its mean is that of the policy from the reference."""
    now, before = (policies.logits(p, prompts, texts) for p in (policy, reference))
    return objectives.kl(now, before, policies.written(texts))
