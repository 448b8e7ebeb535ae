"""The rules that every chapter keeps, each a function of a notebook that returns what is wrong.

python tools/chapter_rules.py [NOTEBOOK ...] prints all that is wrong; the tests require that nothing is.
"""

import io
import itertools
import json
import re
import sys
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from publish_address import address, first_cell

from ditbook.plotting import SHORTEST_ALT

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1_500_000  # bytes of a notebook
WORDS = (1_500, 4_500)
CODE_CELLS = (20, 70)
COLUMNS = 88  # of a line of code: what the built page shows without scrolling
QUESTIONS = EXERCISES = 3
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
    def markdown(self) -> list[dict]:
        return [cell for cell in self.cells if cell["cell_type"] == "markdown"]

    @property
    def text(self) -> str:
        return "\n\n".join(cell["source"] for cell in self.markdown)


Rule = Callable[[Chapter], list[str]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


def name(cell: dict) -> str:
    return f"cell {cell.get('id', '?')}"


@rule
def cells_were_run_in_order(chapter: Chapter) -> list[str]:
    """nbval passes a cell that was never run, because it has nothing to compare."""
    return [
        f"{name(cell)} has execution count {cell['execution_count']}, not {count}"
        for count, cell in enumerate(chapter.code, 1)
        if cell["execution_count"] != count
    ]


@rule
def outputs_hold_no_error_and_no_stderr(chapter: Chapter) -> list[str]:
    return [
        f"{name(cell)} stores {out.get('name', 'an error')}"
        for cell in chapter.code
        for out in cell["outputs"]
        if out["output_type"] == "error" or out.get("name") == "stderr"
    ]


@rule
def outputs_can_be_compared(chapter: Chapter) -> list[str]:
    """What differs between two runs, or shows nothing without a server."""
    kinds = ("image/svg+xml", "application/javascript", "application/vnd.jupyter.widget-view+json")
    wrong = [
        f"{name(cell)} stores {kind}"
        for cell in chapter.code
        for out in cell["outputs"]
        for kind in kinds
        if kind in out.get("data", {})
    ]
    for cell in chapter.code:
        if re.search(r"\bat 0x[0-9a-f]{6,}|%\|[█▏▎▍▌▋▊▉ #]+\|", json.dumps(cell["outputs"], ensure_ascii=False)):
            wrong.append(f"{name(cell)} stores a memory address or a progress bar")
    return wrong


@rule
def lines_end_without_semicolon(chapter: Chapter) -> list[str]:
    """Under nbval a semicolon at the end of a line does not suppress the output."""
    return [f"{name(cell)} has a line that ends in a semicolon" for cell in chapter.code if _semicolon(cell["source"])]


def _semicolon(source: str) -> bool:
    try:
        tokens = [
            token
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type not in (tokenize.COMMENT, tokenize.NL)
        ]
        return any(
            a.string == ";" and b.type in (tokenize.NEWLINE, tokenize.ENDMARKER) for a, b in itertools.pairwise(tokens)
        )
    except (tokenize.TokenError, SyntaxError):  # a line of IPython's own
        return bool(re.search(r";\s*$", source, re.MULTILINE))


@rule
def code_lines_need_no_scrolling(chapter: Chapter) -> list[str]:
    """The first code cell, whose text is prescribed, may be wider."""
    return [
        f"{name(cell)} has a line of {len(line)} columns; {COLUMNS} fit the page"
        for cell in chapter.code[1:]
        for line in cell["source"].split("\n")
        if len(line) > COLUMNS
    ]


@rule
def markdown_is_portable(chapter: Chapter) -> list[str]:
    """Colab and GitHub know no directive and no role."""
    forms = {
        "a directive": r"^\s*(?:```|~~~)\{",
        "a colon fence": r"^\s*:::",
        "a role": r"\{[a-z][\w:.-]*\}`",
        "a target": r"^\([\w-]+\)=\s*$",
        "a substitution": r"\{\{.*?\}\}",
    }
    wrong = []
    for cell in chapter.markdown:
        prose = FENCED.sub("", cell["source"]) if "```{" not in cell["source"] else cell["source"]
        wrong += [
            f"{name(cell)} holds {what} of MyST"
            for what, form in forms.items()
            if re.search(form, _without_math(prose) if what == "a substitution" else prose, re.MULTILINE)
        ]
    return wrong


@rule
def file_is_small(chapter: Chapter) -> list[str]:
    return [f"{chapter.size:,} bytes are more than {LARGEST:,}"] if chapter.size > LARGEST else []


@rule
def ids_are_set_and_unique(chapter: Chapter) -> list[str]:
    ids = [cell.get("id", "") for cell in chapter.cells]
    form = re.compile(rf"ch{chapter.number}-\d{{2,3}}")
    return [f"the cell id {id!r} does not read ch{chapter.number}-MM" for id in ids if not form.fullmatch(id)] + [
        f"the cell id {id!r} stands twice" for id in dict.fromkeys(ids) if ids.count(id) > 1
    ]


@rule
def images_have_alternative_text(chapter: Chapter) -> list[str]:
    """Text of an output image stands in its metadata, that of the built page in the cell's."""
    wrong = []
    for cell in chapter.code:
        images = [
            (kind, out.get("metadata", {}))
            for out in cell["outputs"]
            for kind in ("image/png", "image/jpeg")
            if kind in out.get("data", {})
        ]
        wrong += [
            f"{name(cell)} stores an image without alternative text"
            for kind, about in images
            if not _meaningful(about.get(kind, {}).get("alt", ""))
        ]
        if images and not _meaningful(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")):
            wrong.append(f"{name(cell)} has no alternative text for the built page; run it by `make execute`")
    for cell in chapter.markdown:
        prose = FENCED.sub("", cell["source"])
        texts = re.findall(r"!\[(.*?)\]\(", prose)
        texts += [(re.search(r'alt="([^"]*)"', tag) or ["", ""])[1] for tag in re.findall(r"<img\b[^>]*>", prose)]
        wrong += [f"{name(cell)} shows an image without alternative text" for alt in texts if not _meaningful(alt)]
    return wrong


def _meaningful(alt: str) -> bool:
    return len(alt.strip()) >= SHORTEST_ALT and " " in alt.strip() and "<Figure" not in alt


@rule
def ignored_outputs_have_an_assert_near(chapter: Chapter) -> list[str]:
    wrong, code = [], chapter.code
    for i, cell in enumerate(code):
        ignored = "nbval-ignore-output" in cell["metadata"].get("tags", []) or "NBVAL_IGNORE_OUTPUT" in cell["source"]
        near = "\n".join(other["source"] for other in code[max(0, i - 1) : i + 2])
        if ignored and not re.search(r"^\s*assert\b", near, re.MULTILINE):
            wrong.append(f"{name(cell)} ignores its output, and no assert stands in it or beside it")
    return wrong


@rule
def every_cell_is_checked(chapter: Chapter) -> list[str]:
    """No cell may be left out of the run."""
    forms = ("nbval-skip", "raises-exception", "NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION")
    return [
        f"{name(cell)} holds {form}, so nbval does not check it"
        for cell in chapter.code
        for form in forms
        if form in cell["source"] or form in cell["metadata"].get("tags", [])
    ]


@rule
def first_cell_prepares_colab(chapter: Chapter) -> list[str]:
    wanted = first_cell(address())
    return [] if chapter.code and chapter.code[0]["source"] == wanted else [f"the first code cell must read\n{wanted}"]


@rule
def title_is_numbered(chapter: Chapter) -> list[str]:
    title = chapter.markdown[0]["source"].split("\n")[0] if chapter.markdown else ""
    heads = re.findall(r"^# ", FENCED.sub("", chapter.text), re.MULTILINE)
    wrong = (
        []
        if re.match(rf"# {chapter.number} · \S", title)
        else [f"the title {title!r} must read '# {chapter.number} · …'"]
    )
    return wrong + ([] if len(heads) == 1 else [f"{len(heads)} headings of the first level, not one"])


@rule
def quiz_and_exercises_have_folded_answers(chapter: Chapter) -> list[str]:
    wrong = []
    for kind, least in (("Question", QUESTIONS), ("Exercise", EXERCISES)):
        starts = [match.start() for match in re.finditer(rf"^(?:\*\*|#+ ){kind} \d+", chapter.text, re.MULTILINE)]
        if len(starts) < least:
            wrong.append(f"{len(starts)} of `**{kind} 1.**`, `**{kind} 2.**` …, at least {least} are wanted")
        ends = re.compile(r"^(?:\*\*|#+ )(?:Question|Exercise) \d+|^## ", re.MULTILINE)
        for start in starts:
            end = ends.search(chapter.text, start + 1)
            part = chapter.text[start : end.start() if end else None]
            if not re.search(r"<details>\s*<summary>.*?</summary>\n\n.+?\n\n</details>", part, re.DOTALL):
                wrong.append(f"{part.splitlines()[0][:60]!r} has no answer folded into <details>")
    return wrong


@rule
def folds_are_closed(chapter: Chapter) -> list[str]:
    return [
        f"{name(cell)} opens and closes a different number of <details>"
        for cell in chapter.markdown
        if cell["source"].count("<details") != cell["source"].count("</details>")
    ]


@rule
def length_is_that_of_a_chapter(chapter: Chapter) -> list[str]:
    words, cells = prose_words(chapter), len(chapter.code)
    wrong = [] if WORDS[0] <= words <= WORDS[1] else [f"{words} words of prose, not {WORDS[0]} to {WORDS[1]}"]
    if not CODE_CELLS[0] <= cells <= CODE_CELLS[1]:
        wrong.append(f"{cells} code cells, not {CODE_CELLS[0]} to {CODE_CELLS[1]}")
    return wrong


def prose_words(chapter: Chapter) -> int:
    """Words outside code and mathematics."""
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", _without_math(FENCED.sub(" ", chapter.text)))
    return len(re.findall(r"[^\W\d_][\w'’-]*", text))


def _without_math(text: str) -> str:
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$", " ", text, flags=re.DOTALL)


@rule
def equations_are_numbered_in_order(chapter: Chapter) -> list[str]:
    found = re.findall(r"\\tag\{([^}]*)\}", chapter.text)
    wanted = [f"{int(chapter.number)}.{i}" for i in range(1, len(found) + 1)]
    return [] if found == wanted else [f"the equations are numbered {', '.join(found)}, not {', '.join(wanted)}"]


@rule
def numbered_equations_break_lines_by_cr(chapter: Chapter) -> list[str]:
    """Sphinx wraps mathematics with a double backslash into an environment in which MathJax draws no number."""
    return [
        f"{name(cell)} breaks a line of a numbered equation by \\\\ and not by \\cr"
        for cell in chapter.markdown
        for equation in re.findall(r"\$\$.*?\$\$", cell["source"], re.DOTALL)
        if "\\tag{" in equation and "\\\\" in equation
    ]


@rule
def relative_links_resolve(chapter: Chapter) -> list[str]:
    wrong = []
    for cell in chapter.markdown:
        prose = _without_math(FENCED.sub("", cell["source"]))
        for target in re.findall(r"\]\(([^)\s]+)", prose) + re.findall(r'<img\b[^>]*src="([^"]+)"', prose):
            path = target.split("#")[0]
            if path and not re.match(r"[a-z]+:", path) and not (chapter.path.parent / path).exists():
                wrong.append(f"{name(cell)} links to {target}, which does not exist")
    return wrong


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    found = [
        f"{path.name}: {check.__name__}: {wrong}"
        for path in paths
        for check in RULES
        for wrong in check(Chapter.read(path))
    ]
    print("\n".join(found) or "nothing is wrong")
    sys.exit(bool(found))
