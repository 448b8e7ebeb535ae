"""What search engines, and places where a page is shared, read of a built page."""

from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from print_book import outline
from publish_address import address, pages

pytestmark = pytest.mark.site

PAGES = [page for _, pages in outline() for page in pages]
ADDRESS = pages(address())


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_it_is(site, page):
    head = BeautifulSoup((site / f"{page}.html").read_text(encoding="utf-8"), "html.parser").head
    said = {meta.get("property") or meta.get("name"): meta.get("content") for meta in head.find_all("meta")}
    assert len(head.title.text) > 10
    assert 40 < len(said["description"]) < 250
    assert said["og:description"] == said["description"]
    assert said["og:title"]
    assert said["og:url"] == head.find("link", rel="canonical")["href"] == f"{ADDRESS}{page}.html"
    assert said["og:image"] == f"{ADDRESS}_static/front.png"
    assert (site / "_static" / "front.png").exists()


def test_descriptions_differ(site):
    texts = [(site / f"{page}.html").read_text(encoding="utf-8") for page in PAGES]
    heads = [BeautifulSoup(text, "html.parser").head for text in texts]
    described = [head.find("meta", attrs={"name": "description"})["content"] for head in heads]
    assert len(set(described)) == len(PAGES)


def test_the_sitemap_names_every_page(site):
    found = {each.text for each in ElementTree.parse(site / "sitemap.xml").iter() if each.tag.endswith("loc")}
    assert {f"{ADDRESS}{page}.html" for page in PAGES} <= found
