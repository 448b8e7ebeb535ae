"""Each rule of chapters notices when it is broken."""

import copy
import json

import pytest
from chapter import DEVICE_LINE, Chapter
from chapter_rules import RULES
from publish_address import address, first_cell

FOLD = "<details><summary>Answer</summary>\n\nBecause $x = 1$.\n\n</details>"
ALT = "a digit made of noise"
PNG = {
    "output_type": "display_data",
    "data": {"image/png": "aGk=", "text/plain": "<IPython.core.display.Image object>"},
    "metadata": {"image/png": {"alt": ALT, "width": 300}},
}


def good():
    """A notebook, as JSON, that keeps every rule."""
    prose = ["# 03 · A title", "word " * 1_600, "$$x \\tag{3.1}$$\n\nand\n\n$$y \\tag{3.2}$$", "[here](03_good.ipynb)"]
    prose += [f"**{kind} {i}.** Why?\n\n{FOLD}" for kind in ("Question", "Exercise") for i in (1, 2, 3)]
    prose[7] = f"## Exercises\n\n{prose[7]}"
    prose.append("## Summary")
    code = [first_cell(address()), f"{DEVICE_LINE}\nassert 1 + 1 == 2"] + ["x = 1; y = 2"] * 18
    cells = [{"cell_type": "markdown", "metadata": {}, "source": text} for text in prose]
    for count, text in enumerate(code, 1):
        cells.append({"cell_type": "code", "metadata": {}, "source": text, "execution_count": count, "outputs": []})
    cells[-1]["outputs"] = [copy.deepcopy(PNG)]
    cells[-1]["metadata"] = {"mystnb": {"image": {"alt": ALT}}}
    for i, cell in enumerate(cells, 1):
        cell["id"] = f"ch03-{i:02d}"
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def broken_rules(notebook, folder):
    path = folder / "03_good.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    chapter = Chapter.read(path)
    return {rule.__name__ for rule in RULES if rule(chapter)}


def test_a_good_notebook_breaks_no_rule(tmp_path):
    assert broken_rules(good(), tmp_path) == set()


def put(index, key, value):
    return lambda notebook: notebook["cells"][index].update({key: value})


def add(index, text):
    return lambda notebook: put(index, "source", notebook["cells"][index]["source"] + text)(notebook)


def stored(**output):
    return put(-2, "outputs", [output])


def tagged(*tags, source="x = 1"):
    return lambda notebook: notebook["cells"][-2].update({"metadata": {"tags": list(tags)}, "source": source})


def alt(text):
    return lambda notebook: notebook["cells"][-1]["outputs"][0].update(metadata={"image/png": {"alt": text}})


def drop(start, stop):
    return lambda notebook: notebook["cells"].__delitem__(slice(start, stop))


QUESTION = f"**Question 1.** Why?\n\n{FOLD}"
BREAKS = [
    ("cells_were_run_in_order", put(-1, "execution_count", None)),
    ("cells_were_run_in_order", put(-1, "execution_count", 7)),
    ("outputs_hold_no_error_and_no_stderr", stored(output_type="error", ename="E", evalue="", traceback=[])),
    ("outputs_hold_no_error_and_no_stderr", stored(output_type="stream", name="stderr", text="a warning")),
    ("outputs_can_be_compared", stored(output_type="display_data", data={"image/svg+xml": "<svg/>"}, metadata={})),
    ("outputs_can_be_compared", stored(output_type="stream", name="stdout", text="<object at 0x7f3a12345678>")),
    ("outputs_can_be_compared", stored(output_type="stream", name="stdout", text=" 40%|████      | 4/10")),
    ("lines_end_without_semicolon", put(-1, "source", "x = [1];")),
    ("lines_end_without_semicolon", put(-1, "source", "x = [1];  # quiet\ny = 2")),
    ("lines_end_without_semicolon", put(-1, "source", "!ls\nx = 1;")),
    ("code_lines_need_no_scrolling", put(-1, "source", "x = " + "1" * 85)),
    ("markdown_is_portable", add(1, "\n```{note}\nhi\n```\n")),
    ("markdown_is_portable", add(1, "\n:::{note}\nhi\n:::\n")),
    ("markdown_is_portable", add(1, " {ref}`there`")),
    ("markdown_is_portable", add(1, " {cite:t}`there`")),
    ("markdown_is_portable", add(1, " {{ name }}")),
    ("markdown_is_portable", add(1, "\n\n(a-target)=\n")),
    ("file_is_small", put(-1, "source", "#" * 1_500_000)),
    ("ids_are_set_and_unique", put(-1, "id", "ch03-01")),
    ("ids_are_set_and_unique", put(-1, "id", "ch04-30")),
    ("ids_are_set_and_unique", lambda notebook: notebook["cells"][-1].pop("id")),
    ("images_have_alternative_text", alt("")),
    ("images_have_alternative_text", alt("<Figure size 640x480 with 1 Axes>")),
    ("images_have_alternative_text", put(-1, "metadata", {})),
    ("images_have_alternative_text", add(1, " ![](03_good.ipynb)")),
    ("images_have_alternative_text", add(1, ' <img src="03_good.ipynb">')),
    ("ignored_outputs_have_an_assert_near", tagged("nbval-ignore-output")),
    ("ignored_outputs_have_an_assert_near", put(-2, "source", "# NBVAL_IGNORE_OUTPUT\nx = 'assert'")),
    ("every_cell_is_checked", tagged("nbval-skip")),
    ("every_cell_is_checked", tagged("raises-exception", source="assert False")),
    ("first_cell_prepares_colab", put(11, "source", "import importlib.util")),
    ("device_is_chosen_once", put(12, "source", "assert 1 + 1 == 2")),
    ("device_is_chosen_once", add(13, f"\n{DEVICE_LINE}")),
    ("title_is_numbered", put(0, "source", "# A title")),
    ("title_is_numbered", add(1, "\n\n# Another title")),
    ("quiz_and_exercises_have_folded_answers", put(4, "source", "**Question 1.** Why?")),
    ("quiz_and_exercises_have_folded_answers", put(9, "source", "**Exercise 3.** Why?")),
    ("quiz_and_exercises_have_folded_answers", drop(9, 10)),
    ("folds_are_closed", put(4, "source", f"{QUESTION}\n<details>")),
    ("solutions_are_folded", lambda notebook: notebook["cells"].insert(9, notebook["cells"][-2])),
    ("solutions_are_folded", put(10, "source", "no summary")),
    ("length_is_that_of_a_chapter", put(1, "source", "short")),
    ("length_is_that_of_a_chapter", put(1, "source", "```python\n" + "word " * 1_600 + "\n```")),
    ("length_is_that_of_a_chapter", put(1, "source", "word " * 4_501)),
    ("shown_numbers_are_held_to_a_band", stored(output_type="stream", name="stdout", text="loss ≈ 0.31\n")),
    ("shown_numbers_are_held_to_a_band", stored(output_type="stream", name="stdout", text="≈   0.31 ± 0.03\n")),
    (
        "shown_numbers_are_held_to_a_band",
        stored(output_type="execute_result", data={"text/html": '<td class="measured">0.31</td>'}, metadata={}),
    ),
    ("length_is_that_of_a_chapter", drop(-1, None)),
    ("equations_are_numbered_in_order", add(2, "\n\n$$z \\tag{3.2}$$")),
    ("equations_are_numbered_in_order", add(2, "\n\n$$z \\tag{4.3}$$")),
    ("numbered_equations_break_lines_by_cr", put(2, "source", "$$x \\\\ y \\tag{3.1}$$\n\nand\n\n$$y \\tag{3.2}$$")),
    ("relative_links_resolve", add(1, " [there](../nowhere.md)")),
    ("relative_links_resolve", add(1, " ![a picture of nothing](nowhere.png)")),
]


@pytest.mark.parametrize(("name", "change"), BREAKS, ids=[f"{i:02d}-{name}" for i, (name, _) in enumerate(BREAKS)])
def test_the_rule_notices(name, change, tmp_path):
    notebook = good()
    change(notebook)
    assert name in broken_rules(notebook, tmp_path)


def test_every_rule_is_tested():
    assert {name for name, _ in BREAKS} == {rule.__name__ for rule in RULES}


def test_an_assert_in_the_neighbouring_cell_is_enough(tmp_path):
    notebook = good()
    notebook["cells"][-3]["source"] = "assert loss < 1"
    tagged("nbval-ignore-output")(notebook)
    assert broken_rules(notebook, tmp_path) == set()


@pytest.mark.parametrize(
    "text",
    ["the set {a}, `code` and ``x``", "[link](https://example.org/x) and [mail](mailto:a@b.c)", "$f[x](nowhere)$"],
)
def test_what_only_looks_broken_passes(text, tmp_path):
    notebook = good()
    add(1, " " + text)(notebook)
    assert broken_rules(notebook, tmp_path) == set()


def test_a_shown_number_beside_its_assert_breaks_no_rule(tmp_path):
    notebook = good()
    stored(output_type="stream", name="stdout", text="loss ≈ 0.31\n")(notebook)
    put(-2, "source", "loss = 0.31\nassert 0.2 < loss < 0.4\nprint(f'loss ≈ {loss:.2f}')")(notebook)
    assert broken_rules(notebook, tmp_path) == set()
