"""A chapter's cells are run with other weights in place of those that ship."""

from types import SimpleNamespace

import experiments_seeds as seeds
import nbformat
import pytest
import torch
from chapter import Chapter
from execute import find
from torch import nn

from ditbook import results, weights


@pytest.fixture
def chapter(tmp_path):
    sources = (
        "%pip install nothing",
        "from ditbook import plotting, results, weights\nmodel, rows = weights.load('mine'), results.load('mine')",
        "print(model)\nassert model == 'that which ships'\nfor _ in range(2):\n    print(rows[0])",
        "other = weights.load('gpt-manual'), results.load('gpt-scaling')\nplotting.table({})\nplotting.show(None)",
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


@pytest.mark.parametrize(("number", "reports"), [("04", seeds.BERT), ("05", seeds.GPT)])
def test_the_chapters_have_the_cells_that_are_measured(number, reports):
    assert set(reports) <= {cell["id"] for cell in Chapter.read(find(number)).code}


def test_all_seeds_but_the_first_are_trained(monkeypatch):
    rows = []

    def train(model, loss, data, training, path):
        ema = nn.Linear(1, 1)
        nn.init.constant_(ema.weight, training.seed / 3)
        return SimpleNamespace(ema=ema)

    monkeypatch.setattr(seeds, "train", train)
    monkeypatch.setattr(seeds.recipes, "started", lambda recipe: None)
    monkeypatch.setattr(type(seeds.recipes.load("bert-manual").task), "data", lambda task: None)
    monkeypatch.setattr(seeds, "stored", lambda name, row: row == {"seed": 1})
    monkeypatch.setattr(seeds, "store", lambda name, row: rows.append(row))
    monkeypatch.setattr(seeds, "measured", lambda chapter, reports, name, model: {"model": model})
    seeds.again("bert-manual", "04", seeds.BERT)
    first, last = rows
    assert (first["seed"], last["seed"]) == (0, 2)
    assert first["model"].config == weights.load("bert-manual").config
    assert last["model"].weight.item() == torch.tensor(2 / 3).half().item()  # rounded as what ships
