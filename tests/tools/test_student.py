"""Notebooks without answers: what is cut, what stays, and that what stays runs."""

import nbformat
import pytest
import student
from execute import FOLDER, execute

CHAPTERS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_answers_are_cut_and_nothing_else(path, tmp_path):
    full = nbformat.read(path, as_version=4)
    cut = nbformat.read(student.write(path, tmp_path), as_version=4)
    text = "\n".join(cell.source for cell in cut.cells if cell.cell_type == "markdown")
    assert "<summary>" not in text
    assert "</details>" not in text
    assert text.count("**Question") >= 3
    assert text.count("**Exercise") >= 3
    assert [cell.id for cell in cut.cells] == [cell.id for cell in full.cells]
    code = [(a, b) for a, b in zip(full.cells, cut.cells, strict=True) if a.cell_type == "code"]
    emptied = [i for i, (_, cell) in enumerate(code) if cell.source == student.EMPTY]
    # Empty cells are the last, and what comes before is unchanged: it runs, as the chapter does.
    assert emptied == list(range(len(code) - len(emptied), len(code)))
    assert len(emptied) >= 2
    assert all(a == b for a, b in code[: emptied[0]])


def test_what_is_written_runs(tmp_path):
    solution = "<details><summary>Solution</summary>\n\nFour.\n\n</details>"
    cells = [
        nbformat.v4.new_code_cell("2 + 2"),
        nbformat.v4.new_markdown_cell(f"## Exercises\n\nHow much?\n\n{solution}"),
        nbformat.v4.new_code_cell("assert False, 'a solution'"),
        nbformat.v4.new_markdown_cell("## Summary"),
    ]
    (tmp_path / "given").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "given" / "a.ipynb")
    written = student.write(tmp_path / "given" / "a.ipynb", tmp_path)
    execute(written)
    assert nbformat.read(written, as_version=4).cells[1].source == "## Exercises\n\nHow much?"


def test_a_notebook_is_never_overwritten():
    with pytest.raises(SystemExit, match="would be overwritten"):
        student.write(CHAPTERS[0], FOLDER)


def test_a_notebook_without_exercises_is_refused():
    with pytest.raises(ValueError, match="## Exercises"):
        student.without_answers(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("## Summary")]))
