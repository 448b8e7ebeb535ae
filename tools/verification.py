"""Write book/verification.md: which test proves which equation: python tools/verification.py

Read are the marks `@pytest.mark.equation(number, of=…, against=…)` of tests/ (by their syntax, nothing is run), the
`\\tag{N.M}` of notebooks/, the source of what the marks name, which carries the number of the equation, and
tests/book/definitions.toml, which says why an equation has no test, and which cell carries the number where the package
does not.
"""

import ast
import importlib
import inspect
import json
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def definitions(root: Path = ROOT) -> tuple[dict[str, str], dict[str, str]]:
    """Equation number -> why it is a definition; equation number -> the cell that alone carries its number."""
    path = root / "tests" / "book" / "definitions.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {n: entry for n, entry in entries.items() if isinstance(entry, str)}, entries.get("notebook_only", {})


def code_cells(root: Path = ROOT) -> dict[str, str]:
    """The id of every code cell -> its source."""
    notebooks = (json.loads(path.read_text(encoding="utf-8")) for path in (root / "notebooks").glob("*.ipynb"))
    cells = (cell for notebook in notebooks for cell in notebook["cells"] if cell["cell_type"] == "code")
    return {cell["id"]: "".join(cell["source"]) for cell in cells}


def find(name: str) -> Any:
    """The object that a full name, such as ditbook.layers.patches.patchify, leads to; None if there is none."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part, None)
        return thing
    return None


def source(thing: Any) -> str:
    """The text of a function, method, property or class; of anything else none, for it has none of its own."""
    thing = inspect.unwrap(getattr(thing, "fget", thing))
    return inspect.getsource(thing) if inspect.isroutine(thing) or inspect.isclass(thing) else ""


def problems(root: Path = ROOT) -> list[str]:
    """All that is wrong between equations, tests and definitions, one sentence each."""
    marks, tagged, (defined, _) = proofs(root), tags(root), definitions(root)
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
    wrong += [f"definitions.toml names ({n}), which no notebook tags" for n in defined if n not in tagged]
    wrong += [f"definitions.toml names ({n}), which a test also proves" for n in defined if n in proved]
    wrong += [f"definitions.toml gives no reason for ({n})" for n, reason in defined.items() if len(reason) < 10]
    return wrong + misplaced(marks, root)


def misplaced(marks: list[Proof], root: Path) -> list[str]:
    """What is wrong with where the numbers stand: each in the object that its mark names, or in one cell instead."""
    wrong, absent = [], set()
    _, notebook_only = definitions(root)
    for proof in marks:
        thing, number = find(proof.of), f"({proof.equation})"
        if thing is None:
            wrong.append(f"{proof.test} says of={proof.of!r}, which cannot be imported")
        elif number not in source(thing):
            absent.add(proof.equation)
            if proof.equation not in notebook_only:
                wrong.append(f"{proof.test} says of={proof.of!r}, whose source does not hold {number}")
    cells = code_cells(root)
    wrong += [
        f"definitions.toml says that cell {cell!r} holds ({n}), and it does not"
        for n, cell in notebook_only.items()
        if f"({n})" not in cells.get(cell, "")
    ]
    return wrong + [
        f"definitions.toml says that ({n}) stands in the notebook only, and no mark needs that"
        for n in notebook_only
        if n not in absent
    ]


def page(root: Path = ROOT) -> str:
    """The Markdown of the page: a table for each chapter."""
    marks, tagged, (defined, _) = proofs(root), tags(root), definitions(root)
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
