"""The book as one PDF."""

import re
import unicodedata

import pytest
import yaml
from build_book import ROOT
from print_book import SITE
from pypdf import PdfReader

pytestmark = pytest.mark.site

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CHAPTERS = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]


@pytest.fixture(scope="module")
def book(pdf):
    return PdfReader(pdf)


@pytest.fixture(scope="module")
def texts(book):
    return [unicodedata.normalize("NFKC", page.extract_text()) for page in book.pages]  # ligatures undone


def title(page):
    """What the heading of a built page says."""
    heading = re.search(r"<h1>([^<]*)<a", (SITE / f"{page}.html").read_text(encoding="utf-8"))
    return heading[1]


def entries(book, level):
    """Titles and page numbers of the outline down to a level."""

    def walk(items, depth):
        for item in items:
            if isinstance(item, list):
                yield from walk(item, depth + 1)
            elif depth <= level:
                yield item.title, book.get_destination_page_number(item) + 1

    return list(walk(book.outline, 1))


def test_the_outline_names_every_page_and_leads_to_it(book, texts):
    found = entries(book, 2)
    titles = [title for title, _ in found]
    wanted = [title(TOC["root"]), "Contents", *map(title, CHAPTERS)]
    assert [name for name in titles if name in wanted] == wanted
    numbers = [number for _, number in found]
    assert numbers == sorted(numbers)
    assert len(texts) > 50
    for name, number in found:
        assert name.split()[-1] in texts[number - 1], name


def test_the_table_of_contents_gives_the_right_pages(book, texts):
    starts = dict(entries(book, 2))
    first = starts["Contents"]
    after = min(page for page in starts.values() if page > first)  # the table may take several pages
    text = " ".join(" ".join(texts[first - 1 : after - 1]).split())
    missing = [name for name in map(title, CHAPTERS) if f"{name} {starts[name]}" not in text]
    assert missing == []


def test_links_lead_into_the_book_or_to_the_web(book):
    places, inside, outside, lost = set(book.named_destinations), 0, 0, []
    for page in book.pages:
        for link in (a.get_object() for a in page.get("/Annots", [])):
            if "/Dest" in link:
                inside += 1
                lost += [str(link["/Dest"])] * (str(link["/Dest"]) not in places)
            else:
                outside += 1
                address = str(link["/A"].get("/URI", link["/A"]))
                lost += [address] * (not address.startswith("https://"))
    assert lost == []
    assert inside > 400
    assert outside > 20


def test_every_numbered_equation_is_drawn(texts):
    text = "".join(texts)
    for page in CHAPTERS:
        if page.startswith("notebooks/"):
            tags = re.findall(r"\\\\tag\{([\d.]+)\}", (ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))
            assert tags
            assert [tag for tag in tags if f"({tag})" not in text] == []
    assert "\\tag" not in text


def test_it_can_be_sent_by_mail(pdf):
    assert pdf.stat().st_size < 40e6


def test_it_can_be_read_aloud(book):
    root = book.trailer["/Root"]
    assert root["/Lang"] == "en"
    assert root["/MarkInfo"]["/Marked"]
    assert book.metadata.title == title(TOC["root"])


def test_the_front_page_links_it(browser, pdf):
    tab = browser.new_page()
    tab.goto((SITE / "book" / "index.html").as_uri())
    assert tab.locator("#pdf a").evaluate("link => link.href") == pdf.as_uri()
    tab.close()
