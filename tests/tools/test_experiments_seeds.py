"""A chapter's cells are run with other weights in place of those that ship."""

import experiments_seeds as seeds
import nbformat
import pytest

from ditbook import results, weights


@pytest.fixture
def chapter(tmp_path):
    sources = (
        "%pip install nothing",
        "from ditbook import plotting, results, weights\nmodel, rows = weights.load('mine'), results.load('mine')",
        "print(model)\nassert model == 'that which ships'\nfor _ in range(2):\n    print(rows[0])",
        "other = weights.load('gpt-manual'), results.load('gpt-scaling')\nplotting.table({})",
        "raise RuntimeError('behind the last cell')",
    )
    cells = [nbformat.v4.new_code_cell(source, id=f"ch01-0{i}") for i, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_a.ipynb")
    return str(tmp_path / "01_a.ipynb")


def test_cells_are_measured_with_another_model_and_say_nothing(chapter, capsys):
    reports = {
        "ch01-02": lambda v: {"model": v["model"]},
        "ch01-03": lambda v: {"rows": v["rows"], "other": v["other"]},
    }
    found = seeds.measured(chapter, reports, "mine", "another")
    assert found["model"] == "another"
    assert found["rows"] == []
    model, rows = found["other"]
    assert model.config == weights.load("gpt-manual").config
    assert rows == results.load("gpt-scaling")
    assert capsys.readouterr().out == ""
