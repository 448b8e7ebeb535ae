"""Write notebooks without answers, to hand out: python tools/student.py FOLDER [NOTEBOOK ...]

A notebook's name may be a path, `16_dit`, or `16`; without names all are written. Folded answers and solutions are cut,
and each cell of code among the exercises becomes an empty one. All else stands, with its outputs.
"""

import re
import sys
from pathlib import Path

import nbformat
from chapter import exercises
from execute import FOLDER, find

FOLD = re.compile(r"\n*<details>.*?</details>\n*", re.DOTALL)
EMPTY = "# Your answer"


def without_answers(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without its answers; changed in place.

    Raises:
        ValueError: it has no exercises, or no summary after them.
    """
    for cell in exercises(notebook.cells):
        if cell.cell_type == "code":
            cell.source, cell.outputs, cell.execution_count, cell.metadata = EMPTY, [], None, nbformat.NotebookNode()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FOLD.sub("\n\n", cell.source).strip()
    return notebook


def write(path: Path, folder: Path) -> Path:
    """Write one notebook without answers into the folder, and return where."""
    target = folder / path.name
    if target.resolve() == path.resolve():
        raise SystemExit(f"{target} would be overwritten; name another folder than the notebook's own")
    nbformat.write(without_answers(nbformat.read(path, as_version=4)), target)
    return target


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python tools/student.py FOLDER [NOTEBOOK ...]")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for path in [find(name) for name in sys.argv[2:]] or sorted(FOLDER.glob("*.ipynb")):
        print(write(path, folder))
