"""Rules of the prose pages."""

import re

import pytest
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


@pytest.mark.parametrize("page", ["part1", "part2", "part3", "part4", "architectures", "teaching"])
def test_prose_pages_link_the_glossary(page):
    """That each link leads to a term is seen to by the build, which knows no warnings."""
    links = re.findall(r"\{term\}`([^`]+)`", (ROOT / f"book/{page}.md").read_text(encoding="utf-8"))
    assert len(links) >= 5
    assert len(set(links)) == len(links), "a term is linked where it first stands, and not again"


def test_the_reference_documents_every_module():
    """Packages that only name what they hold are left out, and so are the modules that `plotting` gathers."""
    page = (ROOT / "book/api.md").read_text(encoding="utf-8")
    listed = re.findall(r"automodule:: ditbook\.(\S+)", page)
    package = ROOT / "src/ditbook"
    modules = [
        path.relative_to(package).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in package.rglob("*.py")
        if re.search(r"^(def|class|@)", path.read_text(encoding="utf-8"), flags=re.M)
    ]
    wanted = {name for name in modules if not name.startswith("plotting.")} | {"plotting"}
    assert sorted(listed) == sorted(wanted)
