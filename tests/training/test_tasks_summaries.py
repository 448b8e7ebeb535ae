"""The tasks of chapter 6: what they train on and by which loss, from where they start, and how they are measured."""

import pytest
import torch
import torch.nn.functional as F

from ditbook import weights
from ditbook.data import captions, summaries
from ditbook.judges import summaries as judge
from ditbook.training import policies, recipes
from ditbook.training.loop import TrainConfig, train
from ditbook.training.ppo import Rollouts, divergence
from ditbook.training.tasks import summaries as tasks

SCENE = captions.parse_english("a small red star above a large blue moon")


@pytest.fixture(scope="module")
def imitator():
    return weights.load("summaries-imitation")


@pytest.fixture(scope="module")
def pairs(imitator):
    return tasks.comparisons(imitator, 200, seed=1)


def test_imitation_trains_on_scenes_that_are_not_held_out():
    batch = tasks.Imitate().data()
    assert {name: len(tensor) for name, tensor in batch.items()} == {"prompts": 8000, "texts": 8000}
    scenes = [captions.parse_english(summaries.decode(row)) for row in batch["prompts"][:500].tolist()]
    assert not any(map(captions.held_out, scenes))
    model = weights.load("summaries-imitation")
    few = {name: tensor[:20] for name, tensor in batch.items()}
    logits = policies.logits(model, few["prompts"], few["texts"])
    wanted = F.cross_entropy(logits.flatten(0, 1), few["texts"].flatten(), ignore_index=0)
    torch.testing.assert_close(tasks.Imitate().loss(model, few, None), wanted)


def test_the_imitator_is_as_good_as_the_writers():
    generator = torch.Generator().manual_seed(0)
    scenes = summaries.sample_scenes(1000, generator)
    texts = summaries.targets(summaries.demonstrations(scenes, generator))
    (found,) = weights.metadata("summaries-imitation")["metric"].values()
    assert found == pytest.approx(tasks.qualities(scenes, texts).mean().item(), abs=0.3)


def test_pairs_are_two_texts_of_one_policy_and_what_a_reader_said(imitator, pairs):
    scenes = summaries.sample_scenes(200, torch.Generator().manual_seed(1))
    assert torch.equal(pairs["prompts"], summaries.prompts(scenes))
    margin = tasks.qualities(scenes, pairs["first"]) - tasks.qualities(scenes, pairs["second"])
    torch.testing.assert_close(pairs["margin"], margin)
    same = (pairs["first"] == pairs["second"]).all(dim=1)
    assert same.any()
    assert torch.equal(pairs["preferred"] == 0.5, same)
    sure = margin.abs() > 2
    assert ((pairs["preferred"] == 1) == (margin > 0))[sure].double().mean() > 0.9


def test_the_reward_model_starts_from_the_policy_and_never_sees_the_margin(imitator):
    task = recipes.load("summaries-reward").task
    model = weights.build("gpt-scorer", weights.metadata("summaries-reward")["model"])
    task.start(model)
    assert all(torch.equal(a, b) for a, b in zip(model.trunk.parameters(), imitator.parameters(), strict=True))
    batch = tasks.Prefer(start_from="summaries-imitation", pairs=50).data()
    assert batch.keys() == {"prompts", "first", "second", "preferred"}
    first, second = (policies.scores(model, batch["prompts"], batch[name]) for name in ("first", "second"))
    coin = F.binary_cross_entropy_with_logits(first - second, batch["preferred"])
    torch.testing.assert_close(task.loss(model, batch, None), coin)


def test_agreement_counts_pairs_that_differ(pairs):
    class Oracle(torch.nn.Module):
        """Scores as the judge does."""

        def forward(self, tokens, mask):
            width = summaries.LONGEST_PROMPT + 1
            scenes = [captions.parse_english(summaries.decode(row)) for row in tokens[:, :width].tolist()]
            return tasks.qualities(scenes, tokens[:, width:]).float()[:, None].expand(tokens.shape)

    judged, read = tasks.agreement(Oracle(), pairs)
    assert judged == 1
    assert 0.7 < read < 0.92


def test_the_reward_model_is_better_than_a_coin_and_its_center_is_zero(imitator, pairs):
    scorer = weights.load("summaries-reward")
    judged, read = tasks.agreement(scorer, pairs)
    assert judged > 0.65
    assert read < judged
    centered = tasks.centered(scorer, imitator)
    texts = policies.write(imitator, pairs["prompts"], summaries.LONGEST, torch.Generator().manual_seed(7))
    assert policies.scores(centered, pairs["prompts"], texts).mean().item() == pytest.approx(0, abs=0.25)
    assert scorer.head.bias.item() != centered.head.bias.item()


def test_ppo_starts_from_the_policy_and_the_reward_model_and_moves(imitator):
    task = tasks.Reinforce(
        start_from="summaries-imitation", reward="summaries-reward", ppo={"texts": 8, "minibatch": 4, "epochs": 1}
    )
    model = weights.build("actor-critic", weights.metadata("summaries-imitation")["model"])
    task.start(model)
    assert torch.equal(model.policy.tokens.weight, imitator.tokens.weight)
    assert torch.equal(model.value.head.weight, task.scorer.head.weight)
    data = task.batches(model)
    assert isinstance(data, Rollouts)
    train(model, task.loss, data, TrainConfig(steps=4, learning_rate=1e-3, warmup_steps=1))
    assert len(data.history) == 2
    prompts = task.data()["prompts"][:50]
    texts = policies.write(model.policy, prompts, summaries.LONGEST, torch.Generator().manual_seed(0))
    assert divergence(model.policy, imitator, prompts, texts).mean() > 1e-4


def test_a_stopped_run_of_ppo_goes_on_as_if_it_had_never_stopped(tmp_path):
    """From where a rollout ends: two steps for each, stopped after the second rollout."""
    ppo = {"texts": 8, "minibatch": 4, "epochs": 1, "beta": 0.1}

    def run(steps, path=None):
        task = tasks.Reinforce(start_from="summaries-imitation", reward="summaries-reward", ppo=ppo)
        model = weights.build("actor-critic", weights.metadata("summaries-imitation")["model"])
        task.start(model)
        training = TrainConfig(steps=steps, learning_rate=1e-3, warmup_steps=1)
        trained = train(model, task.loss, task.batches(model), training, path=path)
        return trained.losses, [*model.state_dict().values(), *trained.ema.state_dict().values()]

    losses, tensors = run(8)
    stopped, _ = run(4, tmp_path / "ppo.safetensors")
    resumed_losses, resumed = run(8, tmp_path / "ppo.safetensors")
    assert stopped == losses[:4]
    assert resumed_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(resumed, tensors, strict=True))


@pytest.mark.parametrize("name", ["summaries-ppo", "summaries-ppo-free"])
def test_a_stopped_run_of_ppo_goes_on_where_a_rollout_ends(name):
    """Rollouts are not saved: the checkpoint every 500 steps must not fall into one."""
    assert 500 % recipes.load(name).task.config.steps == 0


def test_the_rubric_adds_its_points(imitator):
    texts = summaries.targets(["a star and a moon", "a star", "a star and a star", "star"])
    prompts = summaries.prompts([SCENE] * 4)
    reward = tasks.with_rubric(lambda prompts, texts: torch.full((4,), 0.5), 2.0)
    assert reward(prompts, texts).tolist() == [2.5, 0.5, -1.5, -1.5]
    assert [judge.RUBRIC[judge.rubric(SCENE, summaries.decode(row))] for row in texts.tolist()] == [1, 0, -1, -1]


def test_dpo_trains_the_margin(imitator):
    task = tasks.PreferDirectly(start_from="summaries-imitation", pairs=40, beta=0.5)
    model = weights.build("gpt", weights.metadata("summaries-imitation")["model"])
    task.start(model)
    batch = task.data()
    loss = task.loss(model, batch, None)
    assert loss.item() == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-5)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.05 * (0 if parameter.grad is None else parameter.grad)
    assert task.loss(model, batch, None) < loss
    first, second = tasks.text_log_probs(model, batch)
    z = 0.5 * (first - batch["reference_first"]) - 0.5 * (second - batch["reference_second"])
    coin = F.binary_cross_entropy_with_logits(z, batch["preferred"])
    torch.testing.assert_close(task.loss(model, batch, None), coin)


def test_the_leash_holds():
    """By the stored metrics: with the penalty better than imitation, without it farther away and worse."""
    metric = {name: weights.metadata(f"summaries-{name}")["metric"] for name in ("imitation", "ppo", "ppo-free")}
    quality, nats = f"quality of {tasks.MEASURED:,} summaries", "nats from the start"
    assert metric["ppo"][quality] > metric["imitation"][quality] + 0.3
    assert metric["ppo-free"][quality] < metric["ppo"][quality]
    assert metric["ppo-free"][nats] > metric["ppo"][nats]
