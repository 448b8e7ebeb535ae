"""Every symbol of a numbered equation stands in the notation table, and every name in code there exists."""

import json
import re

import pytest
from build_book import ROOT

WORDS = r"\\(?:text|operatorname|mathrm|tag|begin|end)\{[^}]*\}"  # names of functions, not symbols
GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "eta",
    "theta",
    "lambda",
    "mu",
    "omega",
    "sigma",
    "tau",
    "Sigma",
]
SIGNS = r"\\(?:mathcal|mathbb)\{[A-Z]\}|\\ell|\\varnothing"


def symbols(latex):
    """Letters of a formula without accents: Latin, Greek, calligraphic; words and all other commands are dropped."""
    latex = re.sub(WORDS, " ", latex)
    found = set(re.findall(SIGNS, latex))
    latex = re.sub(SIGNS + r"|\\mathbf\{1\}", " ", latex)
    found |= {name for name in re.findall(r"\\([A-Za-z]+)", latex) if name in GREEK}
    return found | set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", latex)))


def tables():
    """For "Everywhere" and each chapter's number the symbols of its table, and all names in code."""
    text, known, names = (ROOT / "book/notation.md").read_text(encoding="utf-8"), {}, set()
    for section in text.split("\n## ")[1:]:
        title = section.split("\n")[0]
        rows = [line.split("|") for line in section.splitlines() if line.startswith("| $")]
        key = re.sub(r"Chapter (\d+):.*", r"\1", title)
        known[key] = set().union(*(symbols(part) for row in rows for part in re.findall(r"\$(.*?)\$", row[1])))
        names |= {name for row in rows for name in re.findall(r"`([^`]+)`", row[-2])}
    return known, names


def chapters():
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    return ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_every_symbol_of_an_equation_is_in_the_table(path):
    known, _ = tables()
    number = str(int(path.stem[:2]))
    missing = []
    for equation in re.findall(r"\$\$(.*?)\$\$", "\n".join(cells(path, "markdown")), flags=re.S):
        tag = re.search(r"\\tag\{([^}]*)\}", equation)
        if tag:
            unknown = symbols(equation) - known["Everywhere"] - known.get(number, set())
            missing += [f"{symbol} of ({tag[1]})" for symbol in sorted(unknown)]
    assert missing == []


def test_names_in_code_exist():
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "src/ditbook").rglob("*.py"))
    code += "\n".join("\n".join(cells(path, "code")) for path in chapters())
    assert [name for name in sorted(tables()[1]) if not re.search(rf"\b{re.escape(name)}\b", code)] == []


def test_symbols_are_found():
    assert symbols(r"\hat\epsilon_\theta + \mathcal{L}\, \mathrm{LN}(z'_l) \tag{1.2}") == {
        "epsilon", "theta", r"\mathcal{L}", "z", "l",
    }  # fmt: skip
