"""Write book/chapters.md, each chapter in one row: python tools/glance.py

Read are the notebooks, book/times.toml, the sizes of the weights, and the equations and tests that verification.py
finds.
A chapter uses the weights whose names stand in its code, and the worlds of data that it imports from `ditbook.data`.
"""

import ast
import re
import tomllib
from pathlib import Path

import verification
from chapter import Chapter

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "chapters.md"
WEIGHTS = ROOT / "src" / "ditbook" / "weights"
WORLDS = {  # module that a chapter imports → what it holds
    "data.python_docs": "the manual",
    "tasks.manual": "the manual",
    "tasks.continuation": "the manual",
    "data.mappings": "mappings",
    "data.summaries": "summaries",
    "data.captions": "captions",
    "data.digits": "8×8 digits",
    "data.mnist": "28×28 digits",
    "data.shapes": "scenes",
    "tasks.scenes": "scenes",
    "data.emoji": "emoji",
    "data.images": "photographs",
    "data.photographs": "photographs",
}
HEAD = """\
# Chapters at a glance

What each chapter costs, uses and proves. This page is made by `tools/glance.py` from the notebooks, the weight files
and the marks of the tests, and a test holds it up to date.

*Time* is that of the chapter's code on a server without a GPU, with one thread or two and little else running.
*Weights* ship with the package, and `ditbook train NAME` makes them again.
*Equations* are those that the chapter numbers: so many of them are proved by a test, the others are definitions;
[What proves what](verification.md) lists them all. *Tests* counts the tests that prove them.
"""
COLUMNS = ("Chapter", "Time", "Data", "Weights, MB", "Equations", "Tests")


def parsed(chapter: Chapter) -> list[ast.AST]:
    """The nodes of a chapter's code, without the lines that only a notebook understands."""
    sources = (re.sub(r"^( *)[%!].*$", r"\1pass", cell["source"], flags=re.MULTILINE) for cell in chapter.code)
    return [node for source in sources for node in ast.walk(ast.parse(source))]


def pattern(node: ast.AST) -> str | None:
    """What a string of the code may say, as a regular expression; an f-string's values may be anything."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        return "".join(pattern(part) or ".+" for part in node.values)
    return None


def weights(chapter: Chapter) -> list[str]:
    """The names of the weights that a chapter's code names."""
    said = [text for node in parsed(chapter) if (text := pattern(node))]
    names = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    return [name for name in names if any(re.fullmatch(text, name) for text in said)]


def worlds(chapter: Chapter) -> list[str]:
    """The worlds of data that a chapter's code imports."""
    imports = [node for node in parsed(chapter) if isinstance(node, ast.ImportFrom)]
    modules = [f"{node.module}.{each.name}." for node in imports for each in node.names]
    return list(dict.fromkeys(world for key, world in WORLDS.items() if any(f".{key}." in name for name in modules)))


def row(chapter: Chapter, seconds: int, marks: list[verification.Proof], tagged: dict[str, str]) -> list[str]:
    """The cells of a chapter's row."""
    numbers = [number for number, notebook in tagged.items() if notebook == chapter.path.name]
    proofs = [proof for proof in marks if proof.equation in numbers]
    size = {name: (WEIGHTS / f"{name}.safetensors").stat().st_size / 1e6 for name in weights(chapter)}
    title = chapter.cells[0]["source"].split("\n")[0].removeprefix("# ")
    return [
        f"[{title}](../notebooks/{chapter.path.name})",
        f"{seconds} s",
        ", ".join(worlds(chapter)),
        ", ".join(f"`{name}` {size[name]:.1f}" for name in size) or "none",
        f"{len({proof.equation for proof in proofs})} of {len(numbers)}",
        str(len({proof.test for proof in proofs})),
    ]


def page() -> str:
    """The Markdown of the page.

    Raises:
        ValueError: book/times.toml does not name exactly the chapters there are.
    """
    chapters = [Chapter.read(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    times = tomllib.loads((ROOT / "book" / "times.toml").read_text(encoding="utf-8"))
    if set(times) != {chapter.number for chapter in chapters}:
        raise ValueError(f"book/times.toml names {sorted(times)}, but chapters are {[c.number for c in chapters]}")
    marks, tagged = verification.proofs(), verification.tags()
    rows = [row(chapter, times[chapter.number], marks, tagged) for chapter in chapters]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    shipped = sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) / 1e6
    total = f"{len(chapters)} chapters, {sum(times.values()) / 60:.0f} minutes, {len(tagged)} numbered equations"
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{HEAD}\n{table}\n\nTogether: {total}, {shipped:.0f} MB of weights.\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
