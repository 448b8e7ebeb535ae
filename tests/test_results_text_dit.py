"""The stored measurements of chapter 19: complete, and found again."""

from itertools import product

import experiments_text_dit as experiments
import pytest
import torch

from ditbook import results, weights
from ditbook.data import captions, shapes
from ditbook.judges import composition
from ditbook.training.tasks import emoji as emoji_task
from ditbook.training.tasks import text_dit as task

ABLATION, POSITIONS = results.load("text-ablation"), results.load("text-positions")
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


def test_positions_are_judged_with_three_draws_of_noise():
    wanted = sorted((kind, seed) for kind in experiments.PAIRS for seed in experiments.SEEDS)
    assert sorted((row["pairs"], row["seed"]) for row in POSITIONS) == wanted
    for row in POSITIONS:  # no picture of two things shows two relations, but one with a third thing may
        assert row["as said"] + row["opposite"] + 2 * row["across"] < 1.1


def test_true_images_show_the_relation_that_is_said_and_no_other():
    layouts = shapes.sample(400, torch.Generator().manual_seed(0), things=2)
    layouts = [it for it in layouts if len({thing.shape for thing in it.scene.things}) == 2][:40]
    seen = weights.load("scene-reader").read(shapes.tensors(layouts))
    found = experiments.relations(seen, [it.scene for it in layouts])
    assert found == {"as said": 1, "opposite": 0, "across": 0}


def test_the_ablation_changes_one_part_and_has_three_seeds():
    wanted = sorted(product(experiments.VARIANTS, experiments.SEEDS, experiments.GUIDES))
    assert sorted((row["variant"], row["seed"], row["guidance"]) for row in ABLATION) == wanted
    base = experiments.variant("cross-attention", 0)
    sizes = {row["variant"]: row["parameters"] for row in ABLATION}
    for name in experiments.VARIANTS:
        model = experiments.variant(name, 0)
        assert sizes[name] == sum(p.numel() for p in model.parameters() if p.requires_grad)
        if name in ("short captions", "noise"):
            assert all(map(torch.equal, model.parameters(), base.parameters()))
    assert abs(sizes["joint"] / sizes["cross-attention"] - 1) < 0.02


def test_without_attention_to_words_only_their_mean_counts():
    model = experiments.variant("mean", 0)
    assert not any(p.requires_grad for block in model.blocks for p in block.cross.parameters())
    assert all(block.cross.proj.weight.abs().max() == 0 for block in model.blocks)


def test_the_words_of_clip_are_those_of_its_encoder():
    words, clip = experiments.variant("CLIP", 0).text_encoder, weights.load("clip-shapes")
    tokens = task.scene_tokens([captions.parse_english("a small red star above a large blue moon")])
    end = tokens.argmin(dim=1) - 1 if (tokens == 0).any() else torch.tensor([tokens.shape[1] - 1])
    torch.nn.init.eye_(words.project.weight)
    torch.nn.init.zeros_(words.project.bias)
    with torch.no_grad():
        h, _ = words(tokens)
        joint = torch.nn.functional.normalize(clip.text_project(h[0, end]), dim=-1)
        torch.testing.assert_close(joint, clip.encode_text(tokens, end))
    assert not any("clip" in name for name, _ in words.named_parameters())


def test_half_of_the_captions_can_be_short(monkeypatch):
    few = shapes.sample(400, torch.Generator().manual_seed(0), pairs=shapes.SEEN_PAIRS)
    full = task.scene_tokens([it.scene for it in few])
    monkeypatch.setattr(task.DrawScenes, "sampled", few)
    monkeypatch.setattr(experiments, "latents", lambda: {"tokens": full})
    assert experiments.described("noise")["tokens"] is full
    found = experiments.described("short captions")["tokens"]
    lengths = (found != 0).sum(dim=1)
    assert 0.4 < (lengths <= 5).double().mean() < 0.6, "with begin and end: a star, a red star"
