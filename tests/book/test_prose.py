"""Rules of the prose pages."""

import re

from build_book import ROOT


def test_the_glossary_is_large_and_sorted():
    text = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\S.*)\n  \S", text, flags=re.M)
    assert len(terms) >= 80
    assert terms == sorted(terms, key=str.lower)
    assert len({term.lower() for term in terms}) == len(terms)


def test_the_plan_links_every_chapter_that_exists():
    plan = (ROOT / "book/teaching.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "notebooks").glob("*.ipynb") if f"../notebooks/{path.name}" not in plan]
    assert missing == []
