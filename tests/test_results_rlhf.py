"""Stored measurements of chapter 6: complete, and in agreement with what can be computed again."""

import math

import pytest

from ditbook import results
from ditbook.objectives.preference import best_of_n_kl

SEEDS = (0, 1, 2)
MEASURES = {"nats", "score", "quality", "named", "polite", "words", "complete", "incomplete", "false", "unreadable"}


def test_the_reward_models_are_complete():
    rows = results.load("rlhf-pairs")
    found = sorted((row["seed"], row["pairs"]) for row in rows)
    assert found == [(seed, pairs) for seed in SEEDS for pairs in (125, 250, 500, 1000, 2000, 4000)]
    assert all(0.5 < row["reader"] < row["judge"] < 1 for row in rows)


def test_the_best_of_n_is_at_its_distance():
    rows = results.load("rlhf-best-of-n")
    assert [(row["seed"], row["n"]) for row in rows] == [(seed, 2**k) for seed in SEEDS for k in range(10)]
    assert all(row["nats"] == best_of_n_kl(row["n"]) for row in rows)
    for seed in SEEDS:
        scores = [row["score"] for row in rows if row["seed"] == seed]
        assert scores == sorted(scores)


def test_the_runs_of_ppo_are_complete_and_start_at_the_imitator():
    rows = results.load("rlhf-ppo")
    runs = {(row["beta"], row["rubric"], row["seed"]) for row in rows}
    leashes = [(0.0, 0.0), (0.1, 0.0), (0.1, 1.0), (0.3, 0.0)]
    assert runs == {(*leash, seed) for leash in leashes for seed in SEEDS}
    for run in runs:
        line = [row for row in rows if (row["beta"], row["rubric"], row["seed"]) == run]
        assert [row["rollouts"] for row in line] == [0, 1, 2, 3, 4, 6, 8, 10, 15, 20, 25, 30]
        assert line[0]["nats"] == pytest.approx(0, abs=1e-5)
        assert line[0]["quality"] == rows[0]["quality"]
        assert all(row["nats"] > 0 for row in line[1:])


@pytest.mark.parametrize("experiment", ["rlhf-ppo", "rlhf-parts", "rlhf-uses", "rlhf-dpo"])
def test_every_text_has_one_rule(experiment):
    for row in results.load(experiment):
        assert row.keys() >= MEASURES
        assert math.isclose(sum(row[rule] for rule in ("complete", "incomplete", "false", "unreadable")), 1)


def test_the_parts_are_complete():
    found = {(row["part"], row["raised"], row["seed"], row["rollouts"]) for row in results.load("rlhf-parts")}
    parts = [
        ("all", 0.0),
        ("no baseline", 0.0),
        ("no ratio", 0.0),
        ("no clip", 0.0),
        ("all", 3.0),
        ("no baseline", 3.0),
    ]
    assert found == {(*part, seed, count) for part in parts for seed in SEEDS for count in (0, 1, 2, 3, 4, 6)}


def test_the_parts_with_two_uses_are_complete_and_start_as_the_runs_with_all():
    rows = results.load("rlhf-uses")
    found = sorted((row["part"], row["seed"], row["rollouts"]) for row in rows)
    counts = (0, 1, 2, 3, 4, 6, 8, 10)
    assert found == sorted((part, seed, n) for part in ("no ratio", "no clip") for seed in SEEDS for n in counts)
    whole = {row["seed"]: row for row in results.load("rlhf-ppo") if row["beta"] == 0.1 and row["rollouts"] == 0}
    starts = [row for row in rows if row["rollouts"] == 0]
    assert all(row[key] == pytest.approx(whole[row["seed"]][key]) for row in starts for key in ("score", "quality"))


def test_dpo_is_complete_and_starts_without_a_margin():
    rows = results.load("rlhf-dpo")
    found = {(row["seed"], row["beta"], row["steps"]) for row in rows}
    steps = (0, 10, 25, 50, 100, 150, 250)
    assert found == {(seed, beta, step) for seed in SEEDS for beta in (0.1, 0.5) for step in steps}
    assert all(abs(row["chosen"]) < 1e-4 and abs(row["rejected"]) < 1e-4 for row in rows if row["steps"] == 0)
    assert all(row["chosen"] > row["rejected"] for row in rows if row["steps"] > 0)
