"""A chapter as its notebook stores it, for the rules that it keeps."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEVICE_LINE = 'device = "cuda" if torch.cuda.is_available() else "cpu"'
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Chapter:
    """A notebook as stored."""

    path: Path
    size: int
    cells: list[dict]

    @classmethod
    def read(cls, path: Path) -> "Chapter":
        text = path.read_bytes()
        cells = json.loads(text)["cells"]
        return cls(path, len(text), [{**cell, "source": "".join(cell["source"])} for cell in cells])

    @property
    def number(self) -> str:
        return self.path.name[:2]

    @property
    def code(self) -> list[dict]:
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @property
    def device_lines(self) -> int:
        """How often the line stands that chooses the device."""
        return sum(cell["source"].split("\n").count(DEVICE_LINE) for cell in self.code)

    @property
    def markdown(self) -> list[dict]:
        return [cell for cell in self.cells if cell["cell_type"] == "markdown"]

    @property
    def text(self) -> str:
        return "\n\n".join(cell["source"] for cell in self.markdown)


EXERCISES, SUMMARY = (re.compile(rf"^## {title}$", re.MULTILINE) for title in ("Exercises", "Summary"))


def exercises(cells: list[dict]) -> list[dict]:
    """The cells from the heading of the exercises to that of the summary: tasks, and in code their solutions.

    Raises:
        ValueError: there are no exercises, or no summary after them.
    """
    headings = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in cells]
    first = next((i for i, text in enumerate(headings) if EXERCISES.search(text)), None)
    last = next((i for i, text in enumerate(headings) if SUMMARY.search(text)), None)
    if first is None or last is None or last < first:
        raise ValueError('the notebook needs a heading "## Exercises", and "## Summary" after it')
    return cells[first:last]


Rule = Callable[[Chapter], list[str]]  # what is wrong, a sentence each


def name(cell: dict) -> str:
    return f"cell {cell.get('id', '?')}"


def without_math(text: str) -> str:
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$", " ", text, flags=re.DOTALL)
