"""The page on training beyond one machine: its commands exist, its budgets are those of the package."""

import re
import shlex
import tomllib

import pytest
from build_book import ROOT

from ditbook import cli
from ditbook.training import recipes

PAGE = (ROOT / "book/cluster.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```(?:sh|console)\n(.*?)^```", PAGE.replace("\\\n", ""), flags=re.M | re.S)
COMMANDS = re.findall(r"(?:-m |^|\$ )ditbook (.*)", "\n".join(SHELL), flags=re.M)
DRY, ROWS = re.search(r"^\| `ditbook (.*?)` … \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.M).groups()


def test_every_command_is_one():
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        assert cli.parser().parse_args(shlex.split(command)).run


def test_the_printed_budget_is_that_of_the_package(capsys):
    command, printed = re.search(r"^```console\n\$ ditbook (.*)\n((?:.*\n)*?)```", PAGE, flags=re.M).groups()
    assert cli.main(shlex.split(command)) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("row", ROWS.strip().splitlines())
def test_the_table_of_costs_is_that_of_the_package(row, capsys):
    options, memory, time = (cell.strip() for cell in row.strip("|").split("|"))
    assert cli.main(shlex.split(f"{DRY} {options.strip('`')}")) == 0
    words = capsys.readouterr().out
    assert f"{memory}:" in words
    assert f"400,000 steps: {time} at" in words


def recipe():
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.M | re.S)
    return text


def test_the_recipe_is_one():
    assert recipes.parse("mine", tomllib.loads(recipe())).training.batch_size == 64


def test_every_training_fits_a_card(tmp_path, monkeypatch, capsys):
    """Planned without data; on one card, which needs the more memory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(recipe(), encoding="utf-8")
    trainings = [command for command in COMMANDS if command.startswith("train ") and "--dry-run" not in command]
    assert len(trainings) >= 7
    for command in trainings:
        assert cli.main([*shlex.split(command), "--dry-run"]) == 0
        assert "of 80 GB: fits" in capsys.readouterr().out, command
