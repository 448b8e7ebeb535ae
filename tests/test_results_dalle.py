"""The stored measurements of chapter 9: complete, and of the counts that the chapter names."""

from ditbook import results

SEEDS = {0, 1, 2}


def test_every_codebook_was_trained_with_three_seeds_and_measured_four_times():
    rows = results.load("codebooks")
    kinds = {row["codebook"] for row in rows}
    assert len(kinds) == 6
    found = [(row["codebook"], row["seed"], row["step"]) for row in rows]
    assert len(set(found)) == len(found) == 6 * 3 * 4
    for row in rows:
        assert 1 <= row["perplexity"] <= row["codes"] <= 256
        assert ("temperature" in row) == row["codebook"].startswith("Gumbel")


def test_agreement_was_measured_on_a_thousand_images_each():
    rows = results.load("agreement")
    found = {(row["captions"], row.get("temperature"), row.get("seed")) for row in rows}
    wanted = {(name, t, seed) for name in ("seen", "new") for t in (1.0, 0.7) for seed in SEEDS}
    wanted |= {(name, None, None) for name in ("decoded drawings", "decoded drawings, new")}
    assert found == wanted
    assert len(rows) == len(wanted)
    for row in rows:
        assert row["n"] == 1000
        assert row["all"] <= row["both"] <= min(row["colour"], row["shape"]) <= row["one"]


def test_a_perfect_choice_is_never_worse_and_one_image_leaves_none():
    rows = results.load("reranking")
    assert [(row["by"], row["n"]) for row in rows] == [(by, 2**k) for by in ("clip", "words") for k in range(6)]
    for row in rows:
        assert row["agreement"] <= row["oracle"]
        assert (row["agreement"] == row["oracle"]) == (row["n"] == 1)


def test_words_were_asked_for_of_two_kinds_of_images():
    rows = results.load("words")
    captions = {row["images"]: row["n"] for row in rows if row["what"] == "caption"}
    assert captions == {"seen pairs": 1000, "new pairs": 1000}
    for images in captions:
        asked = [
            row for row in rows if row["images"] == images and row["what"] not in ("caption", "most probable caption")
        ]
        assert sum(row["n"] for row in asked) == 1000
