"""Every chapter keeps the rules."""

import pytest
from chapter import Chapter
from chapter_rules import ROOT, RULES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter_keeps_the_rule(path, rule):
    assert rule(Chapter.read(path)) == []


def test_there_are_chapters():
    assert NOTEBOOKS
