"""Write book/verification.md: which test proves which equation: python tools/verification.py

Read are the marks `@pytest.mark.equation(number, of=…, against=…)` of tests/ (by their syntax, nothing is run), the
`\\tag{N.M}` of notebooks/, and tests/book/definitions.toml, which says why an equation has no test.
"""

import ast
import importlib
import json
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TAG = re.compile(r"\\tag\{([^}]*)\}")
HEAD = """\
# What proves what

Every numbered equation of the book is either implemented by a function that a test holds against a reference from
elsewhere, or the table says why there is nothing to prove here: most often the equation is a definition. This page is
made by `tools/verification.py` from the marks of the tests. A test fails when the page is out of date, when an equation
has neither a test nor a reason, and when a mark names an equation that no chapter states.
"""


@dataclass(frozen=True)
class Proof:
    """One mark: a test that proves an equation."""

    equation: str
    of: str  # the function of the package, by its full name
    against: str  # the reference it is compared with
    test: str  # path::name


def proofs(root: Path = ROOT) -> list[Proof]:
    """The equation marks of all tests, in the order of files and lines."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found += [_proof(mark, node, path.relative_to(root)) for mark in node.decorator_list if _is_mark(mark)]
    return found


def _is_mark(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.equation"


def _proof(mark: ast.Call, test: ast.FunctionDef, path: Path) -> Proof:
    where = f"{path.as_posix()}::{test.name}"
    try:
        arguments = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
        return Proof(*(ast.literal_eval(value) for value in mark.args), **arguments, test=where)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{where}: the mark must read equation("N.M", of="…", against="…") ({error})') from error


def tags(root: Path = ROOT) -> dict[str, str]:
    """Equation number -> the notebook that tags it, in reading order."""
    found = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                found |= dict.fromkeys(TAG.findall("".join(cell["source"])), path.name)
    return found


def definitions(root: Path = ROOT) -> dict[str, str]:
    """Equation number -> why it is a definition."""
    path = root / "tests" / "book" / "definitions.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def importable(name: str) -> bool:
    """Whether a full name, such as ditbook.layers.patches.patchify, leads to an object."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


def problems(root: Path = ROOT) -> list[str]:
    """All that is wrong between equations, tests and definitions, one sentence each."""
    marks, tagged, defined = proofs(root), tags(root), definitions(root)
    proved = {proof.equation for proof in marks}
    wrong = [
        f"({n}) in {tagged[n]} has neither a test nor an entry in definitions.toml"
        for n in tagged
        if n not in proved and n not in defined
    ]
    wrong += [
        f"{proof.test} proves ({proof.equation}), which no notebook tags"
        for proof in marks
        if proof.equation not in tagged
    ]
    wrong += [
        f"{proof.test} says of={proof.of!r}, which cannot be imported" for proof in marks if not importable(proof.of)
    ]
    wrong += [f"definitions.toml names ({n}), which no notebook tags" for n in defined if n not in tagged]
    wrong += [f"definitions.toml names ({n}), which a test also proves" for n in defined if n in proved]
    wrong += [f"definitions.toml gives no reason for ({n})" for n, reason in defined.items() if len(reason) < 10]
    return wrong


def page(root: Path = ROOT) -> str:
    """The Markdown of the page: a table for each chapter."""
    marks, tagged, defined = proofs(root), tags(root), definitions(root)
    lines = [HEAD]
    for notebook in dict.fromkeys(tagged.values()):
        numbers = [number for number in tagged if tagged[number] == notebook]
        tested = sum(any(proof.equation == number for proof in marks) for number in numbers)
        lines += [f"## Chapter {int(notebook[:2])}: {_title(root / 'notebooks' / notebook)}", ""]
        lines += [
            f"[The chapter](../notebooks/{notebook}) numbers {len(numbers)} equations: {tested} are proved by a "
            f"test, {len(numbers) - tested} are not, for the reason given.",
            "",
        ]
        lines += ["| Equation | Function | Test | Held against |", "|---|---|---|---|"]
        for number in numbers:
            lines += [_row(proof) for proof in marks if proof.equation == number] or [
                f"| ({number}) | | none | {_cell(defined.get(number, 'not yet proved'))} |"
            ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(proof: Proof) -> str:
    function = proof.of.rsplit(".", 1)[1]
    file, test = proof.test.rsplit("/", 1)[1].split("::")
    return (
        f"| ({proof.equation}) | {{py:obj}}`{function} <{proof.of}>` | `{test}` in `{file}` | {_cell(proof.against)} |"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _title(path: Path) -> str:
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    return re.sub(r"^#\s*(?:\d+\s*[·.:]\s*)?", "", first.split("\n")[0])


if __name__ == "__main__":
    (ROOT / "book" / "verification.md").write_text(page(), encoding="utf-8")
    for problem in problems():
        print("verification:", problem, file=sys.stderr)
