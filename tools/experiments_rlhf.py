"""What chapter 6 reports: reward models, best of n, PPO with and without its parts, and DPO, three seeds each.

A seed stands for everything after imitation: pairs and readers, the reward model, the optimizer's random numbers. The
policy at the start, `summaries-imitation`, is one for all, and so are the held-out scenes on which all is measured.
"""

import math
import time
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from experiments import RUNS, machine, store, stored
from torch import Tensor

from ditbook import weights
from ditbook.data import summaries
from ditbook.judges import summaries as judge
from ditbook.models.gpt import GPT, ActorCritic, GPTScorer
from ditbook.objectives.preference import best_of_n, best_of_n_kl
from ditbook.training import policies
from ditbook.training.loop import Stepper, TrainConfig, sampled_from, train
from ditbook.training.ppo import PPOConfig, Reward, Rollouts, actor_critic_loss, divergence
from ditbook.training.tasks import summaries as task

SEEDS = (0, 1, 2)
PAIRS = (125, 250, 500, 1000, 2000, 4000)
USED = 4000  # pairs of the reward models that are optimized
SCENES, SAMPLES = 64, 512  # for the best of n: scenes, and texts for each
SHOWN = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MEASURED_AFTER = (0, 1, 2, 3, 4, 6, 8, 10, 15, 20, 25, 30)  # rollouts
LEASHES = ({"beta": 0.0}, {"beta": 0.1}, {"beta": 0.3}, {"beta": 0.1, "rubric": 1.0})
PARTS = {"all": {}, "no baseline": {"baseline": False}, "no ratio": {"ratio": False}, "no clip": {"clip": math.inf}}
RAISED = 3.0  # points that are added to every reward, with and without the baseline
ROLLOUT = {"texts": 200, "minibatch": 40, "epochs": 2}
REUSED = ROLLOUT | {"epochs": 8, "beta": 0.1}  # each text is used more often than usual
PPO_TRAINING = {"learning_rate": 7e-4, "warmup_steps": 10, "grad_clip": 1.0, "ema_decay": 0.9}
DPO_BETAS, DPO_STEPS = (0.1, 0.5), (0, 10, 25, 50, 100, 150, 250)


@cache
def start() -> GPT:
    return weights.load("summaries-imitation")


@cache
def held_out() -> tuple[list[Any], Tensor]:
    """Scenes on which policies are measured, and their prompts."""
    scenes = summaries.sample_scenes(400, torch.Generator().manual_seed(11), held_out=True)
    return scenes, summaries.prompts(scenes)


@cache
def pairs(seed: int) -> dict[str, Tensor]:
    return task.comparisons(start(), max(PAIRS), seed=100 + seed)


@cache
def reward_model(seed: int, count: int = USED) -> GPTScorer:
    """Trained for four passes over the first `count` pairs of a seed."""
    torch.manual_seed(seed)
    model = GPTScorer(start().config)
    model.trunk.load_state_dict(start().state_dict())
    batch = {name: tensor[:count] for name, tensor in pairs(seed).items()}
    training = TrainConfig(
        steps=math.ceil(4 * count / 32), batch_size=32, warmup_steps=10, weight_decay=0.01, ema_decay=0.98,
        grad_clip=1.0, seed=seed,
    )  # fmt: skip
    path = RUNS / f"rlhf-reward-{count}-{seed}.safetensors"
    trained = train(model, lambda m, b, _: task.preference_loss(m, b), batch, training, path=path)
    return task.centered(trained.ema.eval().requires_grad_(False), start())


def measure_pairs() -> None:
    """Agreement of reward models with the judge and with readers, against the number of pairs."""
    test = task.comparisons(start(), 2000, seed=99, held_out=True)
    for seed in SEEDS:
        for count in PAIRS:
            key = {"seed": seed, "pairs": count}
            if not stored("rlhf-pairs", key):
                judged, read = task.agreement(reward_model(seed, count), test)
                store("rlhf-pairs", key | {"judge": judged, "reader": read} | machine())


def measure_best_of_n() -> None:
    """Score and quality of the best of n, for all n from the same texts."""
    missing = [seed for seed in SEEDS if not stored("rlhf-best-of-n", {"seed": seed})]
    if not missing:
        return
    generator = torch.Generator().manual_seed(12)
    scenes = summaries.sample_scenes(SCENES, generator, held_out=True)
    prompts = summaries.prompts(scenes).repeat_interleave(SAMPLES, dim=0)
    texts = torch.cat([policies.write(start(), part, summaries.LONGEST, generator) for part in prompts.split(4096)])
    quality = task.qualities([scene for scene in scenes for _ in range(SAMPLES)], texts).view(SCENES, SAMPLES)
    for seed in missing:
        with torch.no_grad():
            parts = [
                policies.scores(reward_model(seed), *part)
                for part in zip(prompts.split(4096), texts.split(4096), strict=True)
            ]
        scores = torch.cat(parts).view(SCENES, SAMPLES)
        score, found = (best_of_n(scores, values).mean(dim=0) for values in (scores, quality))
        for n in SHOWN:
            row = {"seed": seed, "n": n, "nats": best_of_n_kl(n), "score": score[n - 1].item()}
            store("rlhf-best-of-n", row | {"quality": found[n - 1].item()} | machine())


def measures(policy: GPT, reward: Reward) -> dict[str, float]:
    """What a policy writes for the held-out scenes: divergence, score, quality, and what they consist of."""
    scenes, prompts = held_out()
    with torch.no_grad():
        texts = policies.write(policy, prompts, summaries.LONGEST, torch.Generator().manual_seed(13))
        nats, score = divergence(policy, start(), prompts, texts).mean().item(), reward(prompts, texts).mean().item()
    written = [summaries.decode(row) for row in texts.tolist()]
    readings = [judge.read(text) for text in written]
    truths = [judge.truth(scene, reading) for scene, reading in zip(scenes, readings, strict=True)]
    rules = [judge.rubric(scene, text) for scene, text in zip(scenes, written, strict=True)]
    sums = {
        "quality": task.qualities(scenes, texts).sum().item(),
        "named": sum(named for named, _ in truths) / summaries.THINGS,
        "polite": sum(reading.polite > 0 for reading in readings),
        "words": sum(reading.words for reading in readings),
        **{rule: rules.count(rule) for rule in judge.RUBRIC},
    }
    return {"nats": nats, "score": score} | {name: total / len(scenes) for name, total in sums.items()}


def rollouts(seed: int, reward: Reward, config: PPOConfig) -> Iterator[GPT]:
    """The policy of a PPO run before the first rollout and after each."""
    torch.manual_seed(seed)
    model = ActorCritic(start().config)
    model.policy.load_state_dict(start().state_dict())
    model.value.load_state_dict(reward_model(seed).state_dict())
    prompts = summaries.prompts(summaries.sample_scenes(4000, torch.Generator().manual_seed(3)))
    data = Rollouts(model, start(), reward, prompts, summaries.LONGEST, config)
    stepper = Stepper(model, lambda m, b, _: actor_critic_loss(m, b, config), TrainConfig(**PPO_TRAINING, seed=seed))
    while True:
        yield model.policy
        for _ in range(config.steps):
            stepper.step(data(stepper.generator))
        stepper.check()


def measure_run(
    experiment: str, key: dict[str, Any], config: PPOConfig, reward: Reward, after: tuple[int, ...]
) -> None:
    """One PPO run, measured after some numbers of rollouts; a run is repeated as a whole if its last row is missing."""
    if stored(experiment, key | {"rollouts": after[-1]}):
        return
    scorer, began = partial(policies.scores, reward_model(key["seed"])), time.perf_counter()
    for count, policy in enumerate(rollouts(key["seed"], reward, config)):
        row = key | {"rollouts": count}
        if count in after and not stored(experiment, row):
            seconds = round(time.perf_counter() - began, 1)
            store(experiment, row | measures(policy, scorer) | {"seconds": seconds} | machine())
        if count == after[-1]:
            return


def measure_ppo() -> None:
    """With and without the KL penalty, and with the rubric."""
    for seed in SEEDS:
        scorer = partial(policies.scores, reward_model(seed))
        for leash in LEASHES:
            rubric = leash.get("rubric", 0.0)
            reward = task.with_rubric(scorer, rubric) if rubric else scorer
            key = {"beta": leash["beta"], "rubric": rubric, "seed": seed}
            measure_run("rlhf-ppo", key, PPOConfig(**ROLLOUT, beta=leash["beta"]), reward, MEASURED_AFTER)


def measure_parts() -> None:
    """PPO without one of its parts, every text used eight times; and with rewards that are three points higher."""
    for seed in SEEDS:
        scorer = partial(policies.scores, reward_model(seed))
        for raised in (0.0, RAISED):
            for name, change in PARTS.items():
                if raised and name not in ("all", "no baseline"):
                    continue
                key = {"part": name, "raised": raised, "seed": seed}
                reward = partial(_raised, scorer, raised)
                measure_run("rlhf-parts", key, PPOConfig(**REUSED | change), reward, (0, 1, 2, 3, 4, 6))


def measure_uses() -> None:
    """PPO without ratio or clip where every text is used twice, as in `measure_ppo`, whose runs are those with all."""
    for seed in SEEDS:
        for name in ("no ratio", "no clip"):
            config = PPOConfig(**ROLLOUT | PARTS[name], beta=0.1)
            scorer = partial(policies.scores, reward_model(seed))
            measure_run("rlhf-uses", {"part": name, "seed": seed}, config, scorer, (0, 1, 2, 3, 4, 6, 8, 10))


def _raised(reward: Reward, points: float, prompts: Tensor, texts: Tensor) -> Tensor:
    return reward(prompts, texts) + points


def measure_dpo() -> None:
    """DPO on the pairs of the reward models: log-probabilities of held-out pairs, and what the policy writes."""
    test = task.with_reference(start(), task.comparisons(start(), 500, seed=98, held_out=True))
    test = {name: tensor[test["preferred"] != 0.5] for name, tensor in test.items()}
    for seed in SEEDS:
        batch = task.with_reference(start(), {name: tensor[:USED] for name, tensor in pairs(seed).items()})
        reward = partial(policies.scores, reward_model(seed))
        for beta in DPO_BETAS:
            if stored("rlhf-dpo", {"seed": seed, "beta": beta, "steps": DPO_STEPS[-1]}):
                continue
            model, data = GPT(start().config), sampled_from(batch, 32)
            model.load_state_dict(start().state_dict())
            training = TrainConfig(learning_rate=3e-4, warmup_steps=10, grad_clip=1.0, seed=seed)
            stepper = Stepper(model, lambda m, b, _, beta=beta: task.direct_loss(m, b, beta), training)
            for steps in DPO_STEPS:
                while stepper.count < steps:
                    stepper.step(data(stepper.generator))
                row = {"seed": seed, "beta": beta, "steps": steps}
                if not stored("rlhf-dpo", row):
                    store("rlhf-dpo", row | shifts(model, test) | measures(model, reward) | machine())


@torch.no_grad()
def shifts(policy: GPT, test: dict[str, Tensor]) -> dict[str, float]:
    """Mean change of the log-probability since the start, of preferred and of rejected texts."""
    first, second = task.text_log_probs(policy, test)
    first, second = first - test["reference_first"], second - test["reference_second"]
    won = test["preferred"] > 0.5
    chosen, rejected = torch.where(won, first, second), torch.where(won, second, first)
    return {"chosen": chosen.mean().item(), "rejected": rejected.mean().item()}


EXPERIMENTS = {
    "rlhf-pairs": measure_pairs,
    "rlhf-best-of-n": measure_best_of_n,
    "rlhf-ppo": measure_ppo,
    "rlhf-parts": measure_parts,
    "rlhf-uses": measure_uses,
    "rlhf-dpo": measure_dpo,
}
