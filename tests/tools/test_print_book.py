"""Whether there is a PDF is decided once, for the file and for its link on the front page."""

import print_book
import pytest
from build_book import ROOT

SENTENCE = '<a href="../ditbook.pdf">as one PDF</a>'
BUILT = f'<p>before</p>\n<template id="pdf">\n{SENTENCE}\n</template>\n<p>after</p>'


@pytest.fixture
def front(tmp_path, monkeypatch):
    """The front page as it is built; a browser prints by writing a file."""
    (tmp_path / "book").mkdir()
    page = tmp_path / "book" / "index.html"
    page.write_text(BUILT)
    monkeypatch.setattr(print_book, "SITE", tmp_path)
    monkeypatch.setattr(print_book, "PDF", tmp_path / "ditbook.pdf")
    monkeypatch.setattr(print_book, "print_book", lambda browser: print_book.PDF.write_bytes(b"%PDF"))
    return page


def offered(page):
    """Whether there is the file, after making sure that a reader of the page sees the link exactly then."""
    shown = f'<p id="pdf">\n{SENTENCE}\n</p>' in page.read_text()
    assert shown == print_book.PDF.exists()
    assert page.read_text() == (BUILT.replace("template", "p") if shown else BUILT)
    assert {path.suffix for path in page.parent.iterdir()} == {".html"}
    return shown


@pytest.mark.parametrize("browsers", [(None,), (True,), (True, True), (None, True), (True, None), (None, True, None)])
def test_the_last_run_decides_on_file_and_link_together(front, browsers):
    for browser in browsers:
        print_book.publish(browser)
        assert offered(front) == bool(browser)


def test_a_built_page_promises_nothing(front):
    assert not offered(front)


def test_a_print_that_fails_promises_nothing(front, monkeypatch):
    def fail(browser):
        raise RuntimeError

    monkeypatch.setattr(print_book, "print_book", fail)
    with pytest.raises(RuntimeError):
        print_book.publish(True)
    assert not offered(front)


def test_the_front_page_holds_the_sentence_once():
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    assert [(tag, "../ditbook.pdf" in words) for tag, words in print_book.LINK.findall(text)] == [("template", True)]
    assert text.count("ditbook.pdf") == 1
