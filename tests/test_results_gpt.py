"""The stored measurements of chapter 5: complete, of the models they name, and printed by the chapter as they stand."""

import json
from pathlib import Path

import numpy as np
import pytest

from ditbook import results, weights
from ditbook.models.gpt import GPTConfig

NOTEBOOK = Path(__file__).parents[1] / "notebooks/05_gpt.ipynb"


def test_every_size_and_fraction_was_trained_with_three_seeds():
    rows = results.load("gpt-scaling")
    by_size = [(row["width"], row["depth"], row["seed"]) for row in rows if row["fraction"] == 1]
    by_data = [(row["fraction"], row["seed"]) for row in rows if row["width"] == 48]
    assert len(set(by_size)) == len(by_size) == 6 * 3
    assert len(set(by_data)) == len(by_data) == 5 * 3
    assert {row["seed"] for row in rows} == {0, 1, 2}
    for row in rows:
        config = GPTConfig(vocabulary=1024, longest=64, width=row["width"], depth=row["depth"], heads=1)
        assert row["body"] == config.body
        assert row["loss"] == min(row["losses"]) == row["losses"][row["step"] // 50 - 1]
        assert row["tokens"] == int(165_140 * row["fraction"])


def test_models_that_follow_mappings_were_measured_from_beginning_to_end():
    rows = results.load("gpt-mappings")
    assert sorted((row["depth"], row["seed"]) for row in rows) == [(d, s) for d in (1, 2) for s in range(3)]
    for row in rows:
        assert np.shape(row["accuracy"]) == (5000 // row["every"], len(row["examples"]))
        assert (row["accuracy"][-1][-1] > 0.8) == (row["depth"] == 2)


def test_the_chapter_prints_the_fitted_exponents():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
    rows = results.load("gpt-scaling")
    found = []
    for x, chosen in (
        ("body", [r for r in rows if r["fraction"] == 1]),
        ("tokens", [r for r in rows if r["width"] == 48]),
    ):
        slope, _ = np.polyfit(np.log([r[x] for r in chosen]), np.log([r["loss"] for r in chosen]), 1)
        found.append(-slope)
    assert f"exponent of size {found[0]:.3f}, of data {found[1]:.3f}" in text
    assert found == pytest.approx([0.043, 0.132], abs=5e-4)


@pytest.mark.parametrize(
    ("name", "key", "metric"),
    [
        ("gpt-manual", "perplexity, held out", "perplexity per character of the held-out topics"),
        ("bert-manual", "gaps", "right words in 2,000 held-out gaps"),
        ("bert-manual", "pairs", "right of 2,000 held-out pairs"),
    ],
)
def test_the_weights_were_trained_with_three_seeds(name, key, metric):
    rows = results.load(name)
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert len({row[key] for row in rows}) == 3
    assert rows[0][key] == pytest.approx(weights.metadata(name)["metric"][metric], abs=2e-3)
