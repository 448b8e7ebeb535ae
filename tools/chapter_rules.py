"""The rules that every chapter keeps, each a function of a notebook that returns what is wrong.

python tools/chapter_rules.py [NOTEBOOK ...] prints all that is wrong; the tests require that nothing is. Rules of code
and of prose have modules of their own; here stand those of a chapter as a whole.
"""

import re
import sys
from pathlib import Path

import code_rules
import prose_rules
from chapter import FENCED, Chapter, Rule, name, without_math

from ditbook.plotting import SHORTEST_ALT

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1_500_000  # bytes of a notebook
WORDS = (1_500, 4_500)
CODE_CELLS = (20, 70)


def file_is_small(chapter: Chapter) -> list[str]:
    return [f"{chapter.size:,} bytes are more than {LARGEST:,}"] if chapter.size > LARGEST else []


def ids_are_set_and_unique(chapter: Chapter) -> list[str]:
    ids = [cell.get("id", "") for cell in chapter.cells]
    form = re.compile(rf"ch{chapter.number}-\d{{2,3}}")
    return [f"the cell id {id!r} does not read ch{chapter.number}-MM" for id in ids if not form.fullmatch(id)] + [
        f"the cell id {id!r} stands twice" for id in dict.fromkeys(ids) if ids.count(id) > 1
    ]


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


def length_is_that_of_a_chapter(chapter: Chapter) -> list[str]:
    words, cells = prose_words(chapter), len(chapter.code)
    wrong = [] if WORDS[0] <= words <= WORDS[1] else [f"{words} words of prose, not {WORDS[0]} to {WORDS[1]}"]
    if not CODE_CELLS[0] <= cells <= CODE_CELLS[1]:
        wrong.append(f"{cells} code cells, not {CODE_CELLS[0]} to {CODE_CELLS[1]}")
    return wrong


def prose_words(chapter: Chapter) -> int:
    """Words outside code and mathematics."""
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", without_math(FENCED.sub(" ", chapter.text)))
    return len(re.findall(r"[^\W\d_][\w'’-]*", text))


RULES: tuple[Rule, ...] = (
    *code_rules.RULES,
    *prose_rules.RULES,
    file_is_small,
    ids_are_set_and_unique,
    images_have_alternative_text,
    length_is_that_of_a_chapter,
)


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
