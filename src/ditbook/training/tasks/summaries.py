"""Summaries of scenes that readers want: imitation, a reward model, PPO and DPO.

The qualities that the hidden judge gives are used to compare pairs of texts and to measure, never as a reward.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ditbook import weights
from ditbook.data import captions, summaries
from ditbook.data.scene import Scene
from ditbook.judges import summaries as judge
from ditbook.layers.checks import check_positive, check_range
from ditbook.models.gpt import GPT, ActorCritic, GPTScorer
from ditbook.objectives.preference import bradley_terry_loss, dpo_loss
from ditbook.training import policies
from ditbook.training.loop import Batch, Context, Data
from ditbook.training.ppo import PPOConfig, Reward, Rollouts, actor_critic_loss, divergence
from ditbook.training.tasks import Task

DEMONSTRATIONS = 8_000
MEASURED = 1_000  # held-out scenes, or pairs of texts of them


@dataclass(frozen=True, kw_only=True)
class Imitate(Task[GPT]):
    """Predict each token of the demonstrations."""

    splits = False  # a mean over the tokens, of which each part of a batch has another number

    def data(self) -> Batch:
        """Prompts and demonstrations."""
        generator = torch.Generator().manual_seed(0)
        scenes = summaries.sample_scenes(DEMONSTRATIONS, generator)
        texts = summaries.targets(summaries.demonstrations(scenes, generator))
        return {"prompts": summaries.prompts(scenes), "texts": texts}

    def loss(self, model: GPT, batch: Batch, context: Context) -> Tensor:
        """Cross-entropy of the tokens of the summary."""
        return policies.imitation_loss(model, batch)

    def evaluate(self, model: GPT) -> dict[str, float]:
        """Quality of samples."""
        return measured(model)


@dataclass(frozen=True, kw_only=True)
class Prefer(Task[GPTScorer]):
    """Learn scores of which the preferred text of a pair has the higher one."""

    start_from: str  # weights of the policy whose texts are compared, and of the trunk at the start
    pairs: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "pairs")

    def start(self, model: GPTScorer) -> None:
        """Begin with the layers of the policy."""
        model.trunk.load_state_dict(weights.load(self.start_from).state_dict())

    def data(self) -> Batch:
        """Pairs of texts and which of them was preferred."""
        batch = comparisons(weights.load(self.start_from), self.pairs, seed=1)
        del batch["margin"]
        return batch

    def loss(self, model: GPTScorer, batch: Batch, context: Context) -> Tensor:
        """The cross-entropy of the comparisons."""
        return preference_loss(model, batch)

    def evaluate(self, model: GPTScorer) -> dict[str, float]:
        """Fraction of held-out pairs on which it agrees with the judge, and with single readers."""
        batch = comparisons(weights.load(self.start_from), MEASURED, seed=2, held_out=True)
        judged, read = agreement(model, batch)
        return {"agreement with the judge": round(judged, 4), "agreement with a reader": round(read, 4)}


@dataclass(frozen=True, kw_only=True)
class Reinforce(Task[ActorCritic]):
    """Raise the score of a reward model by PPO.

    A checkpoint does not hold the texts of the rollout at hand: a resumed training begins with a new one. So it goes on
    bit for bit only from between two rollouts, where the steps before it (`save_every` of `train`, and the last one)
    are a multiple of `PPOConfig.steps`. With the recipes' 10 the default of 500 is.
    """

    splits = False  # the policy writes its own data
    start_from: str  # weights of the policy: the start, and the reference of the KL penalty
    reward: str  # weights of the reward model: the reward, and the start of the value network
    rubric: float = 0.0  # weight of the rule-based reward
    ppo: dict[str, Any] = field(default_factory=dict)  # fields of `PPOConfig`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "rubric")

    @cached_property
    def config(self) -> PPOConfig:
        """Hyperparameters."""
        return PPOConfig(**self.ppo)

    @cached_property
    def reference(self) -> GPT:
        """The policy at the start."""
        return weights.load(self.start_from)

    @cached_property
    def scorer(self) -> GPTScorer:
        """The reward model, with a mean score of 0 at the start."""
        return centered(weights.load(self.reward), self.reference)

    def start(self, model: ActorCritic) -> None:
        """Begin with the policy and the reward model."""
        model.policy.load_state_dict(self.reference.state_dict())
        model.value.load_state_dict(self.scorer.state_dict())

    def data(self) -> Batch:
        """Prompts alone: the texts are the policy's own."""
        generator = torch.Generator().manual_seed(3)
        return {"prompts": summaries.prompts(summaries.sample_scenes(4_000, generator))}

    def batches(self, model: ActorCritic) -> Data:
        """Rollouts of the policy in training."""
        reward: Reward = partial(policies.scores, self.scorer)
        reward = with_rubric(reward, self.rubric) if self.rubric else reward
        return Rollouts(model, self.reference, reward, self.data()["prompts"], summaries.LONGEST, self.config)

    def loss(self, model: ActorCritic, batch: Batch, context: Context) -> Tensor:
        """PPO's loss."""
        return actor_critic_loss(model, batch, self.config)

    def evaluate(self, model: ActorCritic) -> dict[str, float]:
        """Quality of samples, and their divergence from the policy at the start."""
        return measured(model.policy, self.reference)


@dataclass(frozen=True, kw_only=True)
class PreferDirectly(Task[GPT]):
    """Direct preference optimization on the comparisons of a reward model."""

    start_from: str  # weights of the policy whose texts are compared: the start, and the reference
    pairs: int
    beta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "pairs")
        check_range(self, "beta")

    @cached_property
    def reference(self) -> GPT:
        """The policy at the start."""
        return weights.load(self.start_from)

    def start(self, model: GPT) -> None:
        """Begin with the policy."""
        model.load_state_dict(self.reference.state_dict())

    def data(self) -> Batch:
        """The pairs of `Prefer`, with the log-probabilities of the reference."""
        return with_reference(self.reference, comparisons(self.reference, self.pairs, seed=1))

    def loss(self, model: GPT, batch: Batch, context: Context) -> Tensor:
        """DPO's loss."""
        return direct_loss(model, batch, self.beta)

    def evaluate(self, model: GPT) -> dict[str, float]:
        """Quality of samples, and their divergence from the reference."""
        return measured(model, self.reference)


def qualities(scenes: Sequence[Scene], texts: Tensor) -> Tensor:
    """What the hidden judge gives to texts as tokens, (B, T) → (B,), float64."""
    points = [judge.quality(scene, summaries.decode(row)) for scene, row in zip(scenes, texts.tolist(), strict=True)]
    return torch.tensor(points, dtype=torch.float64)


def comparisons(policy: GPT, count: int, seed: int, *, held_out: bool = False) -> Batch:
    """Pairs of texts of a policy for one scene each, as readers compared them.

    Returns:
        "prompts" (N, P), "first" and "second" (N, T), "preferred" (N,): 1, 0, or ½ where both texts are the same;
        and "margin" (N,), by how much the first is better, which no training may use.
    """
    generator = torch.Generator().manual_seed(seed)
    scenes = summaries.sample_scenes(count, generator, held_out=held_out)
    prompts = summaries.prompts(scenes)
    first, second = (policies.write(policy, prompts, summaries.LONGEST, generator) for _ in range(2))
    one, other = qualities(scenes, first), qualities(scenes, second)
    preferred = judge.compare(one, other, generator).masked_fill((first == second).all(dim=1), 0.5)
    return {
        "prompts": prompts, "first": first, "second": second, "preferred": preferred, "margin": one - other,
    }  # fmt: skip


def pair_scores(scorer: GPTScorer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores of the first texts and of the second, (B,) each."""
    prompts, texts = batch["prompts"].repeat(2, 1), torch.cat([batch["first"], batch["second"]])
    first, second = policies.scores(scorer, prompts, texts).chunk(2)
    return first, second


def preference_loss(scorer: GPTScorer, batch: Batch) -> Tensor:
    """The loss of a reward model on pairs, as `comparisons` gives them."""
    return bradley_terry_loss(*pair_scores(scorer, batch), batch["preferred"])


@torch.no_grad()
def agreement(scorer: GPTScorer, batch: Batch) -> tuple[float, float]:
    """Fractions of the pairs on which a scorer agrees with the hidden judge, and with single readers; ties left out."""
    first, second = pair_scores(scorer, batch)
    margin, preferred = batch["margin"], batch["preferred"]
    judged = ((first > second) == (margin > 0))[margin != 0]
    read = ((first > second) == (preferred > 0.5))[preferred != 0.5]
    return judged.double().mean().item(), read.double().mean().item()


def text_log_probs(policy: GPT, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the first texts and of the second, (B,) each."""
    prompts, texts = batch["prompts"].repeat(2, 1), torch.cat([batch["first"], batch["second"]])
    first, second = policies.token_log_probs(policy, prompts, texts).sum(dim=1).chunk(2)
    return first, second


@torch.no_grad()
def with_reference(reference: GPT, batch: Batch) -> Batch:
    """The pairs with the log-probabilities under the reference, "reference_first" and "reference_second"."""
    first, second = text_log_probs(reference, batch)
    return batch | {"reference_first": first, "reference_second": second}


def direct_loss(policy: GPT, batch: Batch, beta: float) -> Tensor:
    """DPO's loss on pairs, as `with_reference` gives them."""
    reference = batch["reference_first"], batch["reference_second"]
    return dpo_loss(text_log_probs(policy, batch), reference, batch["preferred"], beta)


@torch.no_grad()
def centered(scorer: GPTScorer, policy: GPT) -> GPTScorer:
    """A copy whose mean score over texts of the policy is 0: comparisons leave the constant open.

    Source: Stiennon et al. 2020, section 3.4.
    """
    generator = torch.Generator().manual_seed(4)
    prompts = summaries.prompts(summaries.sample_scenes(MEASURED, generator))
    texts = policies.write(policy, prompts, summaries.LONGEST, generator)
    copied = copy.deepcopy(scorer)
    copied.head.bias.sub_(policies.scores(scorer, prompts, texts).mean())
    return copied


def with_rubric(reward: Reward, weight: float) -> Reward:
    """The reward and `weight` times the points of the rule that fits a text. The rule is a program of the host."""

    def both(prompts: Tensor, texts: Tensor) -> Tensor:
        scenes = [captions.parse_english(summaries.decode(row)) for row in prompts.tolist()]
        rules = [judge.rubric(scene, summaries.decode(row)) for scene, row in zip(scenes, texts.tolist(), strict=True)]
        points = torch.tensor([judge.RUBRIC[rule] for rule in rules])
        return reward(prompts, texts) + weight * points.to(texts.device)

    return both


def measured(policy: GPT, reference: GPT | None = None) -> dict[str, float]:
    """Mean quality of samples for held-out scenes, and the divergence from a reference."""
    generator = torch.Generator().manual_seed(5)
    scenes = summaries.sample_scenes(MEASURED, generator, held_out=True)
    prompts = summaries.prompts(scenes)
    texts = policies.write(policy, prompts, summaries.LONGEST, generator)
    metric = {f"quality of {MEASURED:,} summaries": round(qualities(scenes, texts).mean().item(), 3)}
    if reference is not None:
        metric["nats from the start"] = round(divergence(policy, reference, prompts, texts).mean().item(), 3)
    return metric
