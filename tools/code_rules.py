"""Rules of a chapter's code cells and of what they store."""

import io
import itertools
import json
import re
import tokenize

from chapter import DEVICE_LINE, Chapter, Rule, name
from publish_address import address, first_cell

COLUMNS = 88  # of a line of code: what the built page shows without scrolling


def cells_were_run_in_order(chapter: Chapter) -> list[str]:
    """nbval passes a cell that was never run, because it has nothing to compare."""
    return [
        f"{name(cell)} has execution count {cell['execution_count']}, not {count}"
        for count, cell in enumerate(chapter.code, 1)
        if cell["execution_count"] != count
    ]


def outputs_hold_no_error_and_no_stderr(chapter: Chapter) -> list[str]:
    return [
        f"{name(cell)} stores {out.get('name', 'an error')}"
        for cell in chapter.code
        for out in cell["outputs"]
        if out["output_type"] == "error" or out.get("name") == "stderr"
    ]


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


def code_lines_need_no_scrolling(chapter: Chapter) -> list[str]:
    """The first code cell, whose text is prescribed, may be wider."""
    return [
        f"{name(cell)} has a line of {len(line)} columns; {COLUMNS} fit the page"
        for cell in chapter.code[1:]
        for line in cell["source"].split("\n")
        if len(line) > COLUMNS
    ]


def ignored_outputs_have_an_assert_near(chapter: Chapter) -> list[str]:
    wrong, code = [], chapter.code
    for i, cell in enumerate(code):
        ignored = "nbval-ignore-output" in cell["metadata"].get("tags", []) or "NBVAL_IGNORE_OUTPUT" in cell["source"]
        near = "\n".join(other["source"] for other in code[max(0, i - 1) : i + 2])
        if ignored and not re.search(r"^\s*assert\b", near, re.MULTILINE):
            wrong.append(f"{name(cell)} ignores its output, and no assert stands in it or beside it")
    return wrong


def shown_numbers_are_held_to_a_band(chapter: Chapter) -> list[str]:
    """What follows a ≈, and a measured cell of a table, is not compared: an assert in the same cell must hold it."""
    return [
        f"{name(cell)} shows measured numbers, and no assert stands in it"
        for cell in chapter.code
        if re.search(r"≈|class=\\?\"measured", json.dumps(cell["outputs"], ensure_ascii=False))
        and not re.search(r"^\s*assert\b", cell["source"], re.MULTILINE)
    ]


def every_cell_is_checked(chapter: Chapter) -> list[str]:
    """No cell may be left out of the run."""
    forms = ("nbval-skip", "raises-exception", "NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION")
    return [
        f"{name(cell)} holds {form}, so nbval does not check it"
        for cell in chapter.code
        for form in forms
        if form in cell["source"] or form in cell["metadata"].get("tags", [])
    ]


def first_cell_prepares_colab(chapter: Chapter) -> list[str]:
    wanted = first_cell(address())
    return [] if chapter.code and chapter.code[0]["source"] == wanted else [f"the first code cell must read\n{wanted}"]


def device_is_chosen_once(chapter: Chapter) -> list[str]:
    """What trains or samples at a size where it matters is moved by it, so a chapter uses a GPU where there is one."""
    count = chapter.device_lines
    return [] if count == 1 else [f"the line {DEVICE_LINE} must stand in one cell, and stands in {count}"]


RULES: tuple[Rule, ...] = (
    cells_were_run_in_order,
    outputs_hold_no_error_and_no_stderr,
    outputs_can_be_compared,
    lines_end_without_semicolon,
    code_lines_need_no_scrolling,
    ignored_outputs_have_an_assert_near,
    shown_numbers_are_held_to_a_band,
    every_cell_is_checked,
    first_cell_prepares_colab,
    device_is_chosen_once,
)
