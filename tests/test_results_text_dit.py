"""The stored measurements of chapter 19: complete, and found again."""

from itertools import product

import experiments_text_dit as experiments
import pytest
import torch

from ditbook import results
from ditbook.judges import composition
from ditbook.training.tasks import emoji as emoji_task
from ditbook.training.tasks import text_dit as task

EMOJI, SCENES = results.load("text-emoji"), results.load("text-scenes")
DIALS = ("guidance", "steps", "seed")


@pytest.mark.parametrize(
    ("rows", "name", "kinds"), [(EMOJI, "kind", experiments.KINDS), (SCENES, "pairs", experiments.PAIRS)]
)
def test_every_setting_is_measured(rows, name, kinds):
    wanted = [(kind, *setting.values()) for setting, kind in product(experiments.settings(), kinds)]
    found = [(row[name], *(row[dial] for dial in DIALS)) for row in rows]
    assert sorted(found) == sorted(wanted)


def test_the_tasks_own_setting_is_measured_with_three_draws_of_noise():
    own = [setting for setting in experiments.settings() if setting["steps"] == task.STEPS]
    assert [it["seed"] for it in own if it["guidance"] == task.GUIDANCE] == list(experiments.SEEDS)
    assert {it["guidance"] for it in own} == set(experiments.SCALES)


def test_what_is_rarer():
    assert all(row["at 1"] <= row["at 5"] for row in EMOJI)
    assert all(row[f"{name}, exact"] <= row[name] for row in SCENES for name in composition.TASKS)


def test_drawings_that_are_asked_for_are_nearest_to_themselves():
    known, hands = (
        emoji_task.embedded(experiments.judge(), emoji_task.images("train")),
        task.emoji_condition("train")["y"],
    )
    counts = {"held-out": 208, "seen": 208, "never seen": 427}
    for kind in experiments.KINDS:
        condition, own = experiments.asked(kind)
        assert len(own) == counts[kind]
        rank = emoji_task.ranks(own, own, known, condition["y"][:, None] == hands)
        assert rank.max() == 0, kind
    assert {row["kind"]: row["drawings"] for row in EMOJI} == counts


def test_another_draw_of_noise_gives_another_picture():
    condition = {name: value[:2] for name, value in task.emoji_condition("pairs").items()}
    first, again, other = (experiments.images(experiments.EMOJI, condition, 4.0, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01


def test_a_row_of_scenes_is_found_again():
    (row,) = [r for r in SCENES if (r["pairs"], r["steps"]) == ("new", 2)]
    generator, setting = torch.Generator().manual_seed(100), {name: row[name] for name in DIALS}
    name = next(iter(composition.TASKS))
    wanted = composition.scenes(name, task.PER_TASK, generator, pairs=experiments.PAIRS["new"])
    x = experiments.images(experiments.SCENES, {"tokens": task.scene_tokens(wanted)}, **setting)
    for key, value in experiments.judged(name, wanted, x).items():
        assert value == pytest.approx(row[key], abs=0.03), key
