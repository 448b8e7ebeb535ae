"""The stored measurements of a hand left out in chapter 8: complete, and of a fair contest."""

from itertools import product

import experiments_hands as experiments
import pytest
import torch

from ditbook import results
from ditbook.data import emoji
from ditbook.training.loop import Context

ROWS = results.load(experiments.NAME)
KEY = ("left out", "seed", "model", "rate")


def test_every_training_is_measured_after_each_number_of_steps():
    first, early = (
        (experiments.HANDS[0], experiments.SEEDS[0]),
        [k for k in experiments.STEPS if k <= experiments.TRIED],
    )
    wanted = {(*first, model, rate, k) for model in experiments.MODELS for rate in experiments.RATES for k in early}
    for model in experiments.MODELS:
        runs = product(experiments.HANDS, experiments.SEEDS, [model], [experiments.chosen(model)], experiments.STEPS)
        wanted |= set(runs)
    assert sorted((*(row[name] for name in KEY), row["steps"]) for row in ROWS) == sorted(wanted)


def test_rows_say_of_how_many_drawings_they_are():
    for row in ROWS:
        names, found = experiments.parts(row["left out"])
        assert row["names"] == len(names)
        assert {part: row[part] for part in found} == {part: len(batch["label"]) for part, batch in found.items()}
        assert all(row[f"{part}, at 1"] <= row[f"{part}, at 5"] for part in ("new", "known"))


@pytest.mark.parametrize("model", experiments.MODELS)
def test_no_rate_tried_names_more_drawings_of_the_five_hands_than_the_chosen_one(model):
    tried = [row for row in ROWS if (row["model"], row["steps"], row["seed"]) == (model, experiments.TRIED, 0)]
    found = {row["rate"]: row["known, at 1"] for row in tried if row["left out"] == experiments.HANDS[0]}
    assert found.keys() == set(experiments.RATES)
    assert found[experiments.chosen(model)] == max(found.values())


def test_neither_hand_nor_pair_left_out_is_in_training():
    names, found = experiments.parts("twemoji")
    x = found["train"]["image"].flatten(1)
    for part in ("new", "known"):
        for image, label in list(zip(found[part]["image"], found[part]["label"], strict=True))[::25]:
            same = (x == image.flatten()).all(dim=1)
            assert not (same & (found["train"]["label"] == label)).any(), names[label]
    every = experiments.drawings()
    pairs = set(zip(every["names"], every["hands"], every["held out"].tolist(), strict=True))
    twins = {name for name, hand, out in pairs if (hand, out) == ("fluent", True)}
    assert not any((name, "fluent-flat", False) in pairs for name in twins)
    assert set(every["hands"]) == set(emoji.HANDS)


def test_both_models_have_one_start_and_see_the_same_pictures(monkeypatch):
    names, found = experiments.parts("twemoji")
    seen, batch = [], {name: rows[:4] for name, rows in found["train"].items()}
    nets = [experiments.built(model, names, seed=1) for model in experiments.MODELS]
    monkeypatch.setattr(experiments.task, "moved", lambda x, generator: seen.append(torch.rand(3, generator=generator)))
    for net, loss in nets:
        with pytest.raises(AttributeError):  # there is no picture
            loss(net, batch, Context(0, torch.Generator().manual_seed(0)))
    assert torch.equal(*seen)
    images = [experiments.towers(net, names)[0].encode_image(batch["image"]) for net, _ in nets]
    assert torch.equal(*images)


def test_a_model_that_knows_all_is_always_right():
    names, found = experiments.parts("twemoji")
    net, _ = experiments.built("classifier", names, seed=0)
    vectors = torch.eye(len(names))
    answers = {part: vectors[batch["label"]] for part, batch in found.items()}
    by_size = {len(batch["label"]): part for part, batch in found.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "towers", lambda net, names: (net, vectors))
        patch.setattr(experiments.task, "embedded", lambda net, x: answers[by_size[len(x)]])
        row = experiments.judged(net, "twemoji")
    assert {value for name, value in row.items() if "," in name and "nearest" not in name} == {1.0}
