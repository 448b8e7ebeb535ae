"""The repository's address stands once, and everything that is derived from it agrees."""

import re
import shutil

import pytest
from publish_address import FILES, ROOT, address, colab, first_cell, first_code_cell, named, pages, publish

NEW = "https://github.com/someone/else-where"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_pages_are_shown_where_the_address_says():
    assert f"  baseurl: &pages {pages(address())}\n" in (ROOT / "_config.yml").read_text(encoding="utf-8")


def test_every_file_names_the_one_address():
    wanted = address().removeprefix("https://github.com/")
    for path, found in named().items():
        assert found <= {wanted}, path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapters_are_linked_and_start_as_they_should(path):
    assert first_code_cell(path) == first_cell(address())
    assert colab(address(), path.name) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_other_file_names_it():
    """A file that the tool does not know would keep the old address."""
    known = set(named())
    folders = ("src", "tests", "tools", "benchmarks", "book", "notebooks", ".ci", ".github")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()] + list(ROOT.glob("*"))
    for path in files:
        if path.suffix in {".md", ".py", ".toml", ".yml", ".ipynb", ".cff", ".txt", ".in", ".sh", ".css", ".bib"}:
            assert path in known or address() not in path.read_text(encoding="utf-8"), path


@pytest.fixture
def copy(tmp_path):
    for path in (path for pattern in FILES for path in ROOT.glob(pattern)):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def test_publishing_leaves_nothing_of_the_old_address(copy):
    old = address(copy)
    changed = publish(NEW + ".git", copy)
    assert {path.name for path in changed} >= {"_config.yml", "README.md", *(path.name for path in NOTEBOOKS)}
    assert address(copy) == NEW
    for path in (path for pattern in FILES for path in copy.glob(pattern)):
        assert old.split("/")[3] not in path.read_text(encoding="utf-8"), path
    for path in copy.glob("notebooks/*.ipynb"):
        assert first_code_cell(path) == first_cell(NEW)
        assert colab(NEW, path.name) in (copy / "README.md").read_text(encoding="utf-8")


def test_publishing_twice_and_back_changes_nothing(copy):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    old = address(copy)
    publish(NEW, copy)
    publish(old, copy)
    assert {path: path.read_bytes() for path in before} == before
    assert publish(old, copy) == []


@pytest.mark.parametrize(
    "url", ["", "someone/ditbook", "http://github.com/a/b", "https://example.org/a/b", "https://github.com/a"]
)
def test_an_address_that_colab_cannot_open_is_refused(copy, url):
    with pytest.raises(ValueError, match=re.escape("https://github.com/ACCOUNT/REPOSITORY")):
        publish(url, copy)


def test_the_placeholder_can_be_nobodys_account():
    """GitHub allows 39 characters, so no stranger can take the name and be installed by the first cells."""
    account = address().split("/")[3]
    assert account.startswith("replace-this") == (len(account) > 39)


@pytest.mark.parametrize(
    ("repository", "shown"),
    [
        ("https://github.com/Someone/ditbook", "https://someone.github.io/ditbook/"),
        ("https://github.com/someone/someone.github.io", "https://someone.github.io/"),
    ],
)
def test_where_the_pages_are_shown(copy, repository, shown):
    publish(repository, copy)
    assert f"  baseurl: &pages {shown}\n" in (copy / "_config.yml").read_text(encoding="utf-8")
