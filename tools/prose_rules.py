"""Rules of a chapter's Markdown cells."""

import re

from chapter import FENCED, Chapter, Rule, exercises, name, without_math

QUESTIONS = EXERCISES = 3


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
            if re.search(form, without_math(prose) if what == "a substitution" else prose, re.MULTILINE)
        ]
    return wrong


def title_is_numbered(chapter: Chapter) -> list[str]:
    title = chapter.markdown[0]["source"].split("\n")[0] if chapter.markdown else ""
    heads = re.findall(r"^# ", FENCED.sub("", chapter.text), re.MULTILINE)
    wrong = (
        []
        if re.match(rf"# {chapter.number} · \S", title)
        else [f"the title {title!r} must read '# {chapter.number} · …'"]
    )
    return wrong + ([] if len(heads) == 1 else [f"{len(heads)} headings of the first level, not one"])


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


def folds_are_closed(chapter: Chapter) -> list[str]:
    return [
        f"{name(cell)} opens and closes a different number of <details>"
        for cell in chapter.markdown
        if cell["source"].count("<details") != cell["source"].count("</details>")
    ]


def solutions_are_folded(chapter: Chapter) -> list[str]:
    """The built page opens them when they are asked for."""
    try:
        cells = exercises(chapter.cells)
    except ValueError as error:
        return [str(error)]
    return [
        f'{name(cell)} stands among the exercises without the tag "hide-cell"'
        for cell in cells
        if cell["cell_type"] == "code" and "hide-cell" not in cell["metadata"].get("tags", [])
    ]


def equations_are_numbered_in_order(chapter: Chapter) -> list[str]:
    found = re.findall(r"\\tag\{([^}]*)\}", chapter.text)
    wanted = [f"{int(chapter.number)}.{i}" for i in range(1, len(found) + 1)]
    return [] if found == wanted else [f"the equations are numbered {', '.join(found)}, not {', '.join(wanted)}"]


def numbered_equations_break_lines_by_cr(chapter: Chapter) -> list[str]:
    """Sphinx wraps mathematics with a double backslash into an environment in which MathJax draws no number."""
    return [
        f"{name(cell)} breaks a line of a numbered equation by \\\\ and not by \\cr"
        for cell in chapter.markdown
        for equation in re.findall(r"\$\$.*?\$\$", cell["source"], re.DOTALL)
        if "\\tag{" in equation and "\\\\" in equation
    ]


def relative_links_resolve(chapter: Chapter) -> list[str]:
    wrong = []
    for cell in chapter.markdown:
        prose = without_math(FENCED.sub("", cell["source"]))
        for target in re.findall(r"\]\(([^)\s]+)", prose) + re.findall(r'<img\b[^>]*src="([^"]+)"', prose):
            path = target.split("#")[0]
            if path and not re.match(r"[a-z]+:", path) and not (chapter.path.parent / path).exists():
                wrong.append(f"{name(cell)} links to {target}, which does not exist")
    return wrong


RULES: tuple[Rule, ...] = (
    markdown_is_portable,
    title_is_numbered,
    quiz_and_exercises_have_folded_answers,
    folds_are_closed,
    solutions_are_folded,
    equations_are_numbered_in_order,
    numbered_equations_break_lines_by_cr,
    relative_links_resolve,
)
