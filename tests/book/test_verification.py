"""Every numbered equation has a test or is a definition, and the page that says so is up to date."""

import json

import pytest
import verification

MARK = """import pytest


@pytest.mark.equation("3.1", of="{of}", against="closed form")
def test_something():
    assert True
"""


def test_equations_tests_and_definitions_agree():
    assert verification.problems() == []


def test_the_page_is_up_to_date():
    page = verification.ROOT / "book" / "verification.md"
    assert page.read_text(encoding="utf-8") == verification.page(), "run `make book` and commit book/verification.md"


@pytest.fixture
def root(tmp_path):
    """A small repository: one chapter with two equations, one proved, one defined."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "tests" / "book").mkdir(parents=True)
    write_equations(tmp_path, "3.1", "3.2")
    (tmp_path / "tests" / "test_it.py").write_text(MARK.format(of="ditbook.layers.patches.patchify"))
    (tmp_path / "tests" / "book" / "definitions.toml").write_text('"3.2" = "defines the letter x"\n')
    return tmp_path


def write_equations(root, *numbers):
    source = "# 03 · Title\n\n" + "".join(f"$$x \\tag{{{number}}}$$\n\n" for number in numbers)
    cells = [{"cell_type": "markdown", "source": source}, {"cell_type": "code", "source": "r'\\tag{9.9}'"}]
    (root / "notebooks" / "03_title.ipynb").write_text(json.dumps({"cells": cells}))


def test_nothing_is_wrong_with_a_small_repository(root):
    assert verification.problems(root) == []
    page = verification.page(root)
    function = "{py:obj}`patchify <ditbook.layers.patches.patchify>`"
    assert f"| (3.1) | {function} | `test_something` in `test_it.py` | closed form |" in page
    assert "| (3.2) | | none | defines the letter x |" in page
    assert "## Chapter 3: Title" in page


def test_an_equation_without_test_and_definition_is_noticed(root):
    write_equations(root, "3.1", "3.2", "3.3")
    assert verification.problems(root) == [
        "(3.3) in 03_title.ipynb has neither a test nor an entry in definitions.toml"
    ]


def test_a_mark_without_equation_is_noticed(root):
    write_equations(root, "3.2")
    assert verification.problems(root) == ["tests/test_it.py::test_something proves (3.1), which no notebook tags"]


@pytest.mark.parametrize("of", ["ditbook.layers.patches.nothing", "ditbook.nowhere.patchify", "nothing.at.all"])
def test_a_function_that_does_not_exist_is_noticed(root, of):
    (root / "tests" / "test_it.py").write_text(MARK.format(of=of))
    assert verification.problems(root) == [f"tests/test_it.py::test_something says of={of!r}, which cannot be imported"]


def test_a_definition_of_nothing_is_noticed(root):
    with (root / "tests" / "book" / "definitions.toml").open("a") as file:
        file.write('"3.4" = "defines another letter"\n"3.1" = "short"\n')
    assert len(verification.problems(root)) == 3


def test_a_mark_that_cannot_be_read_names_the_test(root):
    (root / "tests" / "test_it.py").write_text(MARK.replace('against="closed form"', "against=REFERENCE"))
    with pytest.raises(ValueError, match=r"test_it\.py::test_something"):
        verification.proofs(root)
