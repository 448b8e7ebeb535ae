"""Print the built pages as one PDF, _build/html/ditbook.pdf: python tools/print_book.py

The articles of all pages are put one after another into a single page, in which every link leads to its place in the
book, and Chromium prints that page, so that no LaTeX is needed; the outline is made of the headings. It is printed
twice, since the table of contents can give page numbers only when it is known where each page begins.

The front page links the PDF exactly when there is one: `publish` alone makes both, or neither.
"""

import json
import os
import posixpath
import re
import sys
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import chromium
import pikepdf
import yaml
from bs4 import BeautifulSoup, Tag
from build_book import INDEX, ROOT
from playwright.sync_api import Browser
from pypdf import PdfReader

SITE = INDEX.parent
PDF = SITE / "ditbook.pdf"
LINK = re.compile(r'<(p|template) id="pdf">(.*?)</\1>', re.DOTALL)  # on the front page; nothing shows a template
HEADINGS = ["h1", "h2", "h3", "h4", "h5"]
NOT_PRINTED = ".headerlink, .viewcode-link, .viewcode-back, .colab, #pdf, script, button"
REFERENCES = ("for", "aria-labelledby", "aria-describedby")


SHRINK = """() => document.querySelectorAll("div.math > mjx-container").forEach(formula => {
    const ratio = formula.parentElement.clientWidth / formula.scrollWidth;
    if (ratio < 1) formula.style.fontSize = `${100 * ratio}%`;
})"""  # paper does not scroll, and Chromium would shrink every page until the widest fits


def outline() -> list[tuple[str, list[str]]]:
    """Title and pages of every part; the root page and a part that has an opener need no title of their own."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [("", [toc["root"]])]
    for part in toc["parts"]:
        pages = [chapter["file"] for chapter in part["chapters"]]
        parts.append(("" if re.search(r"/part\d+$", pages[0]) else part["caption"], pages))
    return parts


def parse(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def join() -> BeautifulSoup:
    """All pages in one, with a table of contents whose page numbers are still missing."""
    parts = outline()
    pages = [page for _, listed in parts for page in listed]
    built = {page: parse((SITE / f"{page}.html").read_text(encoding="utf-8")) for page in pages}
    root = built[pages[0]]
    body, rules = [], [(ROOT / "book" / "print.css").read_text(encoding="utf-8")]
    contents = ['<nav id="contents"><h1>Contents</h1>']
    for title, listed in parts:
        if title:
            target = title.lower().replace(" ", "-")
            body.append(f'<h1 class="part page{len(rules)}" id="{target}">{title}</h1>')
            contents.append(f'<a class="part" href="#{target}"><span>{title}</span><b></b></a>')
        for index, page in enumerate(listed):
            opens = not title and index == 0
            article = printable(built[page], page, pages, lower=0 if opens else 1)
            name = article.find(HEADINGS).get_text()
            kind = f"page{len(rules)}"
            rules.append(
                f".{kind} {{ page: {kind} }}\n"
                f"@page {kind} {{ @top-center {{ content: {json.dumps(name, ensure_ascii=False)} }} }}"
            )
            body.append(f'<section class="bd-article {kind}" id="{page}">{article.decode_contents()}</section>')
            if page != pages[0]:
                level = "part" if opens else "chapter"
                contents.append(f'<a class="{level}" href="#{page}"><span>{name}</span><b></b></a>')
    body.insert(1, "".join([*contents, "</nav>"]))
    styles = root.head.find_all("link", rel="stylesheet")
    mathjax = [script for script in root.head.find_all("script") if "mathjax" in str(script).lower()]
    head = ['<meta charset="utf-8">', *map(str, [*styles, *mathjax]), "<style>", *rules, "</style>"]
    head.append(f"<title>{root.select_one('article h1').get_text()}</title>")
    return parse(
        f'<!DOCTYPE html><html lang="en" data-theme="light"><head>{"".join(head)}</head>'
        f'<body class="book bd-content">{"".join(body)}</body></html>'
    )


def printable(built: BeautifulSoup, page: str, pages: list[str], lower: int) -> Tag:
    """The article of a page: all open, ids and links made those of the joined page, headings `lower` levels down."""
    article = built.select_one("article.bd-article")
    for tag in article.select(NOT_PRINTED):
        tag.decompose()
    for heading in article.find_all(HEADINGS):
        heading.name = f"h{int(heading.name[1]) + lower}"
    for fold in article.find_all("details"):
        fold["open"] = ""
    for text in [text for code in article.select("table code") for text in code.find_all(string=re.compile("_"))]:
        text.replace_with(parse(escape(text).replace("_", "_<wbr>")))  # a long name may break there
    for box in article.select("[data-labels]"):
        box.replace_with(frames(box))
    for tag in article.find_all(id=True):
        tag["id"] = f"{page}.{tag['id']}"
    for name in REFERENCES:
        for tag in article.find_all(attrs={name: True}):
            tag[name] = f"{page}.{tag[name]}"
    for link in article.find_all("a", href=True):
        url = urlsplit(link["href"])
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), url.path)).removesuffix(".html")
        target = target if url.path else page
        if target in pages:
            link["href"] = f"#{target}.{url.fragment}" if url.fragment else f"#{target}"
        elif not url.scheme:
            del link["href"]
    return article


def frames(slider: Tag) -> Tag:
    """The frames of a slider (`ditbook.plotting.slider`) side by side."""
    labels = json.loads(slider["data-labels"])
    window = slider.select_one("[role=img]")
    style = re.sub(r"width: \d+px; max-width: 100%;", "", window["style"])
    shown = [
        f'<div><div role="img" aria-label="{label}" '
        f'style="{style.replace("0% 0% /", f"{100 * index / (len(labels) - 1)}% 0% /")}"></div>{label}</div>'
        for index, label in enumerate(labels)
    ]
    return parse(f'<div class="frames">{"".join(shown)}</div>').div


def draw(browser: Browser, joined: BeautifulSoup, path: Path) -> None:
    """Print the joined page once its formulas are drawn."""
    page = SITE / "book" / ".joined.html"  # as deep as the pages, so that their relative addresses hold
    page.write_text(str(joined), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 657, "height": 980})  # what print.css leaves of A4, at 96 dpi
    tab.set_default_timeout(0)  # the whole book: as long as it takes
    try:
        tab.emulate_media(media="print")
        tab.goto(page.as_uri())
        tab.evaluate("async () => { await MathJax.startup.promise; await document.fonts.ready; }")
        tab.evaluate(SHRINK)
        tab.pdf(path=path, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
    finally:
        tab.close()
        page.unlink()


def print_book(browser: Browser) -> None:
    """Write the PDF, whole or not at all."""
    joined, draft = join(), PDF.with_suffix(".part")
    draw(browser, joined, draft)
    reader = PdfReader(draft)
    for line in joined.select("#contents a"):
        place = reader.named_destinations["/" + line["href"][1:]]
        line.b.string = str(reader.get_destination_page_number(place) + 1)
    draw(browser, joined, draft)
    with pikepdf.open(draft, allow_overwriting_input=True) as printed:  # compress its tags: half the size
        printed.save(draft, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    os.replace(draft, PDF)


def publish(browser: Browser | None) -> None:
    """Print the PDF and show its link on the front page; without a browser, leave neither file nor link."""
    if browser is None:
        PDF.unlink(missing_ok=True)
    else:
        print_book(browser)
    front = SITE / "book" / "index.html"
    draft, tag = front.with_suffix(".part"), "p" if browser else "template"
    draft.write_text(LINK.sub(rf'<{tag} id="pdf">\2</{tag}>', front.read_text(encoding="utf-8")), encoding="utf-8")
    os.replace(draft, front)


if __name__ == "__main__":
    with chromium.opened() as browser:
        publish(browser)
    if PDF.exists():
        print(f"The same as one PDF: {PDF.as_uri()}")
    else:
        print(f"There is no PDF: it needs Chromium (the package `{chromium.PACKAGES[0]}`).", file=sys.stderr)
