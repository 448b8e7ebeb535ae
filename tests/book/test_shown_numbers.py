"""Measured numbers are shown in chapters and yet may differ: what follows a ≈ is masked, and nothing else is."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = re.findall("^regex: (.*)\nreplace: (.*)$", (ROOT / "tests/nbval.cfg").read_text(), re.MULTILINE)


def masked(text):
    for pattern, replacement in PATTERNS:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("number", ["0.31", "-2", "−1.5e-3", "1,797", "12,345,678.5", "3.0e+08", "0"])
def test_a_number_after_the_sign_is_masked(number):
    assert masked(f"loss ≈ {number} nats") == "loss ≈ NUMBER nats"
    assert masked(f"1000 steps: ≈ {number}, ≈ {number} of 3") == "1000 steps: ≈ NUMBER, ≈ NUMBER of 3"
    assert masked(f"score ≈   {number} | ≈{number}") == "score ≈ NUMBER | ≈ NUMBER"


@pytest.mark.parametrize("spread", ["0.03", "1,204.5", "2e-05", " 7"])
def test_its_uncertainty_is_masked(spread):
    assert masked(f"gain ≈  0.71 ± {spread} of 3 ± 1") == "gain ≈ NUMBER ± NUMBER of 3 ± 1"
    assert masked(f"gain ≈ 0.71±{spread}") == "gain ≈ NUMBER ± NUMBER"


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ("loss ≈ 0.31 nats", "loss ≈ 0.31 bits"),
        ("loss ≈ 0.31 nats", "error ≈ 0.31 nats"),
        ("loss ≈ 0.31", "loss ≈ nan"),
        ("loss ≈  0.31", "loss ≈  nan"),
        ("loss ≈ 0.31 ± 0.03", "loss ≈ 0.31"),
        ("loss ≈ 0.31 ± 0.03", "loss ≈ 0.31 ± nan"),
        ("loss ≈ 0.31 ± 0.03 nats", "loss ≈ 0.31 ± 0.03 bits"),
        ("chance 0.5 ± 0.025", "chance 0.5 ± 0.026"),
        ("0.12 s", "0.13 s"),
        ("3.5 ms", "3.6 ms"),
        ("loss ≈ 0.31 after 300 steps", "loss ≈ 0.31 after 301 steps"),
        ("loss 0.31", "loss 0.32"),
        ('<td>10</td><td class="measured">1</td>', '<td>11</td><td class="measured">1</td>'),
    ],
)
def test_everything_else_is_compared(stored, found):
    assert masked(stored) != masked(found)


def test_measured_cells_of_a_table_are_masked():
    row = '<tr><th scope="row">a</th><td class="measured">{}</td></tr>'
    assert masked(row.format("0.5")) == masked(row.format("0.75")) != masked(row.replace("a<", "b<").format("0.5"))


def test_nbval_applies_the_mask(tmp_path):
    """A notebook whose stored number is another passes; one whose word, or whose seconds, are another fails."""
    for name, printed, stored in (
        ("number", "loss ≈ 0.31 nats", "loss ≈ 0.99 nats\n"),
        ("spread", "loss ≈  0.31 ± 0.02", "loss ≈ 10.99 ± 0.15\n"),
        ("word", "loss ≈ 0.31 nats", "loss ≈ 0.31 bits\n"),
        ("seconds", "in 0.31 s", "in 0.32 s\n"),
    ):
        cell = nbformat.v4.new_code_cell(f"print({printed!r})", execution_count=1)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored)]
        metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), tmp_path / f"{name}.ipynb")
    options = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    options += [f"--nbval-sanitize-with={ROOT / 'tests/nbval.cfg'}", f"--rootdir={tmp_path}", "-c", "/dev/null"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "2 failed, 2 passed" in done.stdout, done.stdout
    summary = done.stdout.split("short test summary")[1]
    assert "word.ipynb" in summary
    assert "seconds.ipynb" in summary
