"""Every numbered equation has a test or is a definition, its number stands in the code, and the page is up to date."""

import json

import pytest
import torch
import verification

MARK = """import pytest


@pytest.mark.equation("16.1", of="{of}", against="closed form")
def test_something():
    assert True
"""


def test_equations_tests_and_definitions_agree():
    assert verification.problems() == []


def test_the_page_is_up_to_date():
    page = verification.ROOT / "book" / "verification.md"
    assert page.read_text(encoding="utf-8") == verification.page(), "run `make book` and commit book/verification.md"


PATCHIFY = "ditbook.layers.patches.patchify"  # its source holds (16.1)


@pytest.fixture
def root(tmp_path):
    """A small repository: one chapter with two equations, one proved, one defined."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "tests" / "book").mkdir(parents=True)
    write_equations(tmp_path, "16.1", "16.2")
    write_mark(tmp_path)
    define(tmp_path, '"16.2" = "defines the letter x"')
    return tmp_path


def write_equations(root, *numbers, code="r'\\tag{9.9}'"):
    source = "# 16 · Title\n\n" + "".join(f"$$x \\tag{{{number}}}$$\n\n" for number in numbers)
    cells = [{"cell_type": "markdown", "id": "ch16-01", "source": source + "See (16.1)."}]
    cells += [{"cell_type": "code", "id": "ch16-02", "source": code}]
    (root / "notebooks" / "16_title.ipynb").write_text(json.dumps({"cells": cells}))


def write_mark(root, of=PATCHIFY):
    (root / "tests" / "test_it.py").write_text(MARK.format(of=of))


def define(root, *lines):
    with (root / "tests" / "book" / "definitions.toml").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def test_nothing_is_wrong_with_a_small_repository(root):
    assert verification.problems(root) == []
    page = verification.page(root)
    function = f"{{py:obj}}`patchify <{PATCHIFY}>`"
    assert f"| (16.1) | {function} | `test_something` in `test_it.py` | closed form |" in page
    assert "| (16.2) | | none | defines the letter x |" in page
    assert "## Chapter 16: Title" in page


def test_an_equation_without_test_and_definition_is_noticed(root):
    write_equations(root, "16.1", "16.2", "16.3")
    assert verification.problems(root) == [
        "(16.3) in 16_title.ipynb has neither a test nor an entry in definitions.toml"
    ]


def test_a_mark_without_equation_is_noticed(root):
    write_equations(root, "16.2")
    assert verification.problems(root) == ["tests/test_it.py::test_something proves (16.1), which no notebook tags"]


@pytest.mark.parametrize("of", ["ditbook.layers.patches.nothing", "ditbook.nowhere.patchify", "nothing.at.all"])
def test_a_function_that_does_not_exist_is_noticed(root, of):
    write_mark(root, of)
    assert verification.problems(root) == [f"tests/test_it.py::test_something says of={of!r}, which cannot be imported"]


@pytest.mark.parametrize(
    "of", ["ditbook.layers.patches.unpatchify", "ditbook.layers.mlp.MLP", "ditbook.layers.patches"]
)
def test_a_number_that_is_not_in_the_source_is_noticed(root, of):
    write_mark(root, of)
    assert verification.problems(root) == [
        f"tests/test_it.py::test_something says of={of!r}, whose source does not hold (16.1)"
    ]


def test_a_number_may_stand_in_the_notebook_only(root):
    write_equations(root, "16.1", "16.2", code="y = x  # (16.1)")
    write_mark(root, "ditbook.layers.patches.unpatchify")
    define(root, "[notebook_only]", '"16.1" = "ch16-02"')
    assert verification.problems(root) == []


@pytest.mark.parametrize("cell", ["ch16-01", "ch16-02", "ch16-03"])
def test_a_cell_that_does_not_hold_the_number_is_noticed(root, cell):
    """The first is prose, the second is other code, the third does not exist."""
    write_mark(root, "ditbook.layers.patches.unpatchify")
    define(root, "[notebook_only]", f'"16.1" = "{cell}"')
    assert verification.problems(root) == [f"definitions.toml says that cell {cell!r} holds (16.1), and it does not"]


def test_an_entry_that_no_mark_needs_is_noticed(root):
    write_equations(root, "16.1", "16.2", code="y = x  # (16.1)")
    define(root, "[notebook_only]", '"16.1" = "ch16-02"')
    assert verification.problems(root) == [
        "definitions.toml says that (16.1) stands in the notebook only, and no mark needs that"
    ]


def outer():
    class Inner:
        x = 1  # (1)

        @property
        def y(self):
            return 2  # (2)

        @torch.no_grad()
        def z(self):
            return 3  # (3)

    return Inner


@pytest.mark.parametrize(("name", "held"), [("", "123"), ("y", "2"), ("z", "3"), ("x", "")])
def test_the_source_of_a_class_is_all_of_it_and_that_of_a_method_its_own(name, held):
    thing = getattr(outer(), name) if name else outer()
    assert [number for number in "123" if f"({number})" in verification.source(thing)] == list(held)


def test_a_definition_of_nothing_is_noticed(root):
    define(root, '"16.4" = "defines another letter"', '"16.1" = "short"')
    assert len(verification.problems(root)) == 3


def test_a_mark_that_cannot_be_read_names_the_test(root):
    (root / "tests" / "test_it.py").write_text(MARK.replace('against="closed form"', "against=REFERENCE"))
    with pytest.raises(ValueError, match=r"test_it\.py::test_something"):
        verification.proofs(root)
