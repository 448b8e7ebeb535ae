"""Stored measurements: complete, of the models they name, and printed by the chapters as they stand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ditbook import results
from ditbook.models.dit import BLOCKS, DiTConfig

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SIZES = ("S", "M", "L", "XL")
SCALING = {f"{size}/{patch}" for size in SIZES for patch in (4, 2, 1)}


def printed(name):
    """Everything that a notebook prints, as stored."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("text", "")) for output in outputs)


def tabled(name):
    """The rows of all tables that a notebook shows, as stored, each a list of texts."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    tables = ["".join(output.get("data", {}).get("text/html", "")) for c in cells for output in c.get("outputs", [])]
    rows = re.findall("<tr>(.*?)</tr>", "".join(tables), flags=re.DOTALL)
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def at(steps, key, sampling_steps=25):
    """A measurement of all models of the scaling experiment, by name."""
    rows = [r for r in results.load("scaling") if (r["steps"], r["sampling_steps"]) == (steps, sampling_steps)]
    return {f"{r['size']}/{r['patch']}": r[key] for r in rows}


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ValueError, match="no experiment named 'cats'; there are"):
        results.load("cats")


def test_names_are_the_experiments():
    chapter_3 = ("norms", "translators")
    chapter_4 = ("bert-manual", "fine-tuning", "manual", "masking")
    chapter_5 = ("gpt-manual", "gpt-mappings", "gpt-scaling")
    chapter_6 = ("rlhf-best-of-n", "rlhf-dpo", "rlhf-pairs", "rlhf-parts", "rlhf-ppo", "rlhf-uses")
    chapter_8 = ("emoji-hands",)
    chapter_9 = ("agreement", "codebooks", "reranking", "words")
    chapter_12 = ("guidance", "paths", "samplers")
    chapter_13 = ("augmentation", "cascade", "denoising", "edits", "inpainting", "inpainting-gaussian", "outpainting")
    others = ("ablation", "bound", "bound-samples", "open-start", "pixel-noise", "random-start", "scaling")
    chapter_14 = ("unclip-captions", "unclip-emoji", "unclip-places", "unclip-probe", "unclip-sources")
    chapter_19 = ("text-ablation", "text-emoji", "text-positions", "text-scenes")
    language = (*chapter_4, *chapter_5, *chapter_6)
    assert results.names() == sorted(
        [*chapter_3, *language, *chapter_8, *chapter_9, *chapter_12, *chapter_13, *chapter_14, *chapter_19, *others]
    )


@pytest.mark.parametrize("experiment", ["ablation", "open-start", "random-start", "scaling"])
def test_rows_are_of_the_models_they_name(experiment):
    for row in results.load(experiment):
        name, digits = f"tiny-{row['size']}/{row['patch']}", {"size": 8, "channels": 1, "num_classes": 10}
        counted = DiTConfig.from_name(name, **digits, learn_sigma=False, block=row["block"]).complexity()
        assert (row["macs"], row["parameters"]) == (counted.macs, counted.trainable)
        assert {"seed", "steps", "sampling_steps", "distance", "loss", "seconds", "machine", "torch"} <= row.keys()


def test_the_ablation_is_complete():
    found = [(row["block"], row["seed"], row["steps"]) for row in results.load("ablation")]
    assert sorted(found) == sorted((b, seed, steps) for b in BLOCKS for seed in range(3) for steps in (500, 1000, 2000))


@pytest.mark.parametrize("experiment", ["open-start", "random-start"])
def test_the_other_starts_are_those_of_adaln_zero_and_complete(experiment):
    found = [(row["block"], row["seed"], row["steps"]) for row in results.load(experiment)]
    assert sorted(found) == [("adaLN-Zero", seed, steps) for seed in range(3) for steps in (500, 1000, 2000)]


def test_the_scaling_experiment_is_complete():
    for steps in (250, 500, 1000):
        assert at(steps, "distance").keys() == SCALING
    for sampling_steps in (5, 10, 50, 100):
        assert at(1000, "distance", sampling_steps).keys() == {f"{size}/4" for size in SIZES}
    assert at(4000, "distance").keys() == {f"{size}/{patch}" for size in ("S", "M", "L") for patch in (4, 2)}


RULES = ("80/10/10", "100/0/0", "80/20/0", "80/0/20", "0/50/50", "left to right")
LABELS = (32, 64, 128, 256, 512, 1024, 2048, 8000)


def test_the_experiments_of_chapter_3_are_complete():
    found = sorted((row["norm"], row["warmup_steps"], row["seed"]) for row in results.load("norms"))
    assert found == sorted((n, w, s) for n in ("pre-norm", "post-norm") for w in (0, 100) for s in range(3))
    assert {len(row["losses"]) for row in results.load("norms")} == {120}
    rivals = (("Transformer", 0.0), ("Transformer", 0.1), ("GRU with attention", 0.0))
    found = sorted((row["model"], row["smoothing"], row["seed"]) for row in results.load("translators"))
    assert found == sorted((*rival, seed) for rival in rivals for seed in range(2))
    assert {row["steps"] for row in results.load("translators")} == {130}


def test_chapter_3_prints_what_was_measured():
    rows = tabled("03_transformer.ipynb")
    for norm, warmup in ((n, w) for n in ("pre-norm", "post-norm") for w in (0, 100)):
        losses = [r["losses"] for r in results.load("norms") if (r["norm"], r["warmup_steps"]) == (norm, warmup)]
        ends = [[np.mean(one[a : a + 10]) for one in losses] for a in (70, 110)]
        assert [f"{norm}, {warmup or 'no'} steps", *map(over_seeds, ends)] in rows
    for model, smoothing in (("GRU with attention", 0.0), ("Transformer", 0.0), ("Transformer", 0.1)):
        same = [r for r in results.load("translators") if (r["model"], r["smoothing"]) == (model, smoothing)]
        found = [[row[key] for row in same] for key in ("exactly right", "loss", "largest probability")]
        assert [
            model + (f", smoothing {smoothing}" if smoothing else ""),
            *(over_seeds(values, 3) for values in found),
        ] in rows


def test_the_masking_experiment_is_complete():
    rows = results.load("masking")
    floors = [("untrained", 0), ("untrained", 1), ("untrained", 2), ("no network", 0)]
    wanted = [(rule, s) for rule in RULES for s in range(3)] + floors
    assert sorted((row["rule"], row["seed"]) for row in rows) == sorted(wanted)
    for row in rows:
        if (row["rule"], row["seed"]) in floors:
            assert {"colour", "wrong word", "machine", "torch"} <= row.keys()
            assert "words" not in row
            continue
        contest = row["rule"] in ("80/10/10", "left to right")
        assert {"words", "articles", "colour", "wrong word", "machine", "torch"} <= row.keys()
        assert ("written" in row) == contest
        assert ("articles, whole sentence" in row) == (row["rule"] == "left to right")
        assert ("right words doubted" in row) == ("wrong words doubted" in row) == (row["rule"] != "left to right")


def test_the_experiment_on_the_manual_is_complete():
    found = [(row["rule"], row["seed"], row["steps"]) for row in results.load("manual")]
    contest = ("80/10/10", "left to right")
    assert sorted(found) == sorted((r, seed, steps) for r in contest for seed in range(3) for steps in (2500, 5000))
    for row in results.load("manual"):  # the rival reads nothing else
        assert row["rule"] == "80/10/10" or row["gaps"] == row["gaps, text before alone"]


def test_the_fine_tuning_experiment_is_complete():
    found = [(r["start"], r["trained"], r["labels"], r["seed"], r["steps"]) for r in results.load("fine-tuning")]
    kinds = [
        (start, *how) for start in ("pre-trained", "from scratch") for how in (("all layers", 200), ("classifier", 0))
    ]
    kinds += [("bag of words", part, 0) for part in ("classifier", "perceptron")]
    wanted = [(start, part, n, s, steps) for start, part, steps in kinds for n in LABELS for s in range(3)]
    wanted += [("from scratch", "all layers", n, s, 1400) for n in (256, 2048, 8000) for s in range(3)]
    assert sorted(found) == sorted(wanted)


def over_seeds(values, digits=2):
    """As chapters 3 and 4 print the values of several seeds."""
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})"


def test_chapter_8_prints_what_was_measured():
    rows = tabled("08_clip.ipynb")
    for left_out in ("twemoji", "noto-v1"):
        runs = [row for row in results.load("emoji-hands") if (row["left out"], row["steps"]) == (left_out, 800)]
        for what in ("new, at 1", "new, at 5", "new, nearest", "known, at 1"):
            found = [[row[what] for row in runs if row["model"] == model] for model in ("CLIP", "classifier")]
            assert [str(runs[0][what.split(",")[0]]), *map(over_seeds, found)] in [row[1:] for row in rows]


def test_chapter_4_prints_what_was_measured():
    rows = tabled("04_bert.ipynb")
    for rule in RULES[:-1]:
        found = [
            [r[key] for r in results.load("masking") if r["rule"] == rule] for key in ("words", "colour", "wrong word")
        ]
        assert [rule, *map(over_seeds, found)] in rows
    for name, rule, text in (
        ("untrained", "untrained", over_seeds),
        ("each word alone", "no network", "{0[0]:.2f}".format),
    ):
        found = [[r[key] for r in results.load("masking") if r["rule"] == rule] for key in ("colour", "wrong word")]
        assert [name, "", *map(text, found)] in rows
    for name, rule, key in (
        ("both ways", "80/10/10", "gaps"),
        ("both ways, the text behind the gap taken away", "80/10/10", "gaps, text before alone"),
        ("left to right, what stands before", "left to right", "gaps"),
    ):
        both = [
            [r[key] for r in results.load("manual") if (r["rule"], r["steps"]) == (rule, steps)]
            for steps in (2500, 5000)
        ]
        assert [name, *map(over_seeds, both)] in rows
    for name, kind in {
        "pre-trained, all layers": ("pre-trained", "all layers", 200),
        "pre-trained, classifier alone": ("pre-trained", "classifier", 0),
        "from scratch, all layers, 200 steps": ("from scratch", "all layers", 200),
        "from scratch, classifier alone": ("from scratch", "classifier", 0),
        "counts of words, perceptron": ("bag of words", "perceptron", 0),
        "counts of words, linear": ("bag of words", "classifier", 0),
    }.items():
        tuned = [r for r in results.load("fine-tuning") if (r["start"], r["trained"], r["steps"]) == kind]
        found = [[r["accuracy"] for r in tuned if r["labels"] == n] for n in (32, 256, 2048, 8000)]
        assert [name, *map(over_seeds, found)] in rows


def test_the_experiment_on_the_bound_is_complete_and_its_terms_add_up():
    rows = results.load("bound")
    plans = [("linear", loss) for loss in ("simple", "hybrid", "bound", "bound, uniform t")]
    plans += [("cosine", loss) for loss in ("simple", "hybrid")]
    found = sorted((row["schedule"], row["loss"], row["seed"]) for row in rows)
    assert found == sorted((*plan, seed) for plan in plans for seed in range(3))
    for row in rows:
        heads = {"posterior", "beta"} | ({"learned"} if row["loss"] != "simple" else set())
        assert row["bits"].keys() == row["terms"].keys() == heads
        assert {len(terms) for terms in row["terms"].values()} == {22}
        for name, bits in row["bits"].items():
            assert abs(sum(row["terms"][name]) - bits) < 1e-3


def test_the_samples_of_chapter_11_are_ten_digits_of_three_of_its_trainings():
    rows, measured = results.load("bound-samples"), results.load("bound")
    keys = [(row["schedule"], row["loss"], row["seed"]) for row in rows]
    assert keys == [("linear", "simple", 0), ("linear", "bound", 0), ("cosine", "hybrid", 0)]
    for key, row in zip(keys, rows, strict=True):
        pixels = np.array(row["pixels"])
        assert pixels.shape == (10, 64)
        assert pixels.dtype.kind == "i"
        assert pixels.min() == 0
        assert 200 < pixels.max() <= 255
        same_noise = [np.corrcoef(one, other)[0, 1] for one, other in zip(pixels, rows[0]["pixels"], strict=True)]
        assert min(same_noise) > 0.85
        assert 0 < row["read"] < 1
        (distance,) = (r["distance"] for r in measured if (r["schedule"], r["loss"], r["seed"]) == key)
        assert row["distance"] == pytest.approx(distance, rel=0.03)  # trained again


def test_chapter_16_prints_the_means_of_the_ablation():
    text = printed("16_dit.ipynb")
    for block in BLOCKS:
        means = [
            np.mean([r["distance"] for r in results.load("ablation") if (r["block"], r["steps"]) == (block, steps)])
            for steps in (500, 1000, 2000)
        ]
        assert re.search(rf"^{block} +" + " +".join(f"{mean:.2f}" for mean in means), text, flags=re.M)


def test_chapter_18_prints_what_was_measured():
    rows = tabled("18_scaling.ipynb")
    for name, distance in at(1000, "distance").items():
        assert [row[-2:] for row in rows if row[0] == f"tiny-{name}" and len(row) == 6] == [
            [f"{distance:.2f}", f"{at(1000, 'loss')[name]:.3f}"]
        ]
    for name in at(4000, "distance"):
        distances, losses = ([at(steps, key)[name] for steps in (1000, 4000)] for key in ("distance", "loss"))
        assert [f"tiny-{name}", *(f"{d:.2f}" for d in distances), *(f"{e:.3f}" for e in losses)] in rows


def test_chapter_18_prints_the_correlations_of_what_was_measured():
    rows = tabled("18_scaling.ipynb")
    cases = [("all twelve", steps, SCALING) for steps in (250, 500, 1000)]
    cases += [("the eight without patches of 2", 1000, {name for name in SCALING if name[-1] != "2"})]
    cases += [("the seven without S/1 too", 1000, {name for name in SCALING if name[-1] != "2"} - {"S/1"})]
    cases += [("the six that went on", steps, set(at(4000, "distance"))) for steps in (1000, 4000)]
    for word, y in (("distance", "distance"), ("error", "loss")):
        for label, steps, names in cases:
            work, weights = (
                np.corrcoef([(np.log10(at(steps, x)[name]), at(steps, y)[name]) for name in names], rowvar=False)[0, 1]
                for x in ("macs", "parameters")
            )
            found = [row[1:] for row in rows if row[0] == f"{word}: {label}, {steps:,} steps"]
            values = [[cell.split()[0] for cell in row] for row in found]
            assert values == [[f"{r:.2f}" for r in (work, weights, weights - work)]]
