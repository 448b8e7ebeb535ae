"""The built pages, read over file:// in a real browser; each is opened once per view for all tests that read it."""

import json
from pathlib import Path

import axe_playwright_python
import pytest
from build_book import ROOT
from print_book import outline
from publish_address import address, colab

pytestmark = pytest.mark.site

PAGES = [page for _, pages in outline() for page in pages]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
UNFOLD = "document.querySelectorAll('details').forEach(fold => fold.open = true)"


def seen(pages, *views):
    """Run a test on each page in each view."""
    cases = [(page, view) for page in pages for view in views]
    return pytest.mark.parametrize("tab", cases, indirect=True, ids=[" ".join(case) for case in cases])


@seen(PAGES, "light")
def test_page_is_complete_by_itself(tab):
    tab.evaluate(UNFOLD)
    tab.wait_for_timeout(200)
    assert tab.outside == [], "asked of another host"
    assert tab.errors == []
    unnamed = tab.evaluate(
        "[...document.images].filter(i => (i.alt ?? '').trim().length < 4).map(i => i.outerHTML.slice(0, 200))"
    )
    assert unnamed == [], "images without alternative text"
    broken = tab.evaluate("[...document.images].filter(i => i.complete && i.naturalWidth === 0).map(i => i.src)")
    assert broken == [], "images that do not load"


CUT_OFF = """() => [...document.querySelectorAll("main mjx-container[display=true]")].filter(equation => {
    const box = equation.closest("div.math") ?? equation.parentElement;
    return box.scrollWidth > box.clientWidth + 1;
}).map(equation => equation.textContent.slice(0, 80))"""


@seen(CHAPTERS, "light")
def test_mathematics_is_drawn(tab):
    cells = json.loads(notebook(tab).read_text(encoding="utf-8"))["cells"]
    tags = sum("".join(cell["source"]).count("\\tag{") for cell in cells if cell["cell_type"] == "markdown")
    assert tab.locator("mjx-container").count() > tags
    assert tab.locator("mjx-mlabeledtr").count() == tags, "numbered equations"
    assert tab.locator("mjx-merror, .MathJax_Error, [data-mjx-error]").count() == 0
    tab.evaluate(UNFOLD)
    assert tab.evaluate(CUT_OFF) == [], "equations wider than the page of a desktop: break their lines"
    text = tab.evaluate("""() => {
        const copy = document.querySelector("main").cloneNode(true);
        copy.querySelectorAll("pre, code, mjx-container, script").forEach(e => e.remove());
        return copy.textContent;
    }""")
    assert [sign for sign in ("\\[", "\\(", "$$", "\\tag", "\\frac", "<details", "</summary") if sign in text] == []


@seen(CHAPTERS, "light", "dark")
def test_figures_are_shown_as_drawn_and_text_is_readable(request, tab):
    _, scheme = request.node.callspec.params["tab"]
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    filters = tab.evaluate("[...document.querySelectorAll('.cell_output img')].map(i => getComputedStyle(i).filter)")
    assert filters
    assert set(filters) == {"none"}
    assert contrast(tab, "main p") >= 7


def notebook(tab):
    """The notebook that a page shows."""
    return ROOT / "notebooks" / f"{Path(tab.url).stem}.ipynb"


def contrast(tab, selector):
    """Ratio of luminances between text and page, as WCAG 2.1 defines it."""
    colours = tab.evaluate(
        """selector => [getComputedStyle(document.querySelector(selector)).color,
        getComputedStyle(document.body).backgroundColor]""",
        selector,
    )
    light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    channels = [float(value) / 255 for value in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# axe keeps private fields in WeakMaps, of which V8 makes slow work: as properties they take half the time.
FAST = """
class WeakMap {
    key = Symbol();
    has(object) { return Object.hasOwn(object, this.key); }
    get(object) { return object?.[this.key]; }
    set(object, value) { object[this.key] = value; return this; }
    delete(object) { return delete object[this.key]; }
}
class WeakSet extends WeakMap { add(object) { return this.set(object, true); } }
"""
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
VIOLATIONS = """async () => {
    const runOnly = {type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]};
    const found = await axe.run(document, {resultTypes: ["violations"], runOnly});
    return found.violations.map(v => `${v.id}, ${v.nodes.length} times: ${v.nodes[0].html.slice(0, 200)}`);
}"""
# Opened cells fade in for 0.3 s, during which their text is paler than it will be.
SETTLE = "async () => { await Promise.all(document.getAnimations().map(animation => animation.finished)); }"


def violations(tab):
    tab.wait_for_selector("html[data-quizzes=ready]")
    tab.evaluate(UNFOLD)
    tab.evaluate(SETTLE)
    tab.evaluate(f"() => {{ {FAST} {AXE} }}")
    return tab.evaluate(VIOLATIONS)


@seen([*PAGES, "search"], "light", "dark")
def test_page_is_accessible(tab):
    """No violation of WCAG 2.1, levels A and AA, that axe-core finds, with all answers open."""
    assert violations(tab) == []


def test_what_is_not_accessible_is_found(visit):
    tab = visit(PAGES[0])
    tab.evaluate("""() => {
        document.querySelector("main p").style.color = "#ccc";
        document.querySelector("main img").removeAttribute("alt");
        document.querySelector("main").insertAdjacentHTML("beforeend", '<a href="#"></a>');
    }""")
    assert [found.split(",")[0] for found in violations(tab)] == ["color-contrast", "image-alt", "link-name"]


CLIPPED = """() => [...document.querySelectorAll("main mjx-container[display=true]")].filter(equation => {
    const box = equation.closest("div.math");
    const inside = equation.getBoundingClientRect(), room = box.getBoundingClientRect();
    return inside.left < room.left - 1 || (inside.right > room.right + 1 && getComputedStyle(box).overflowX !== "auto");
}).map(equation => equation.textContent.slice(0, 80))"""


LOST = """() => [...document.querySelectorAll("article span.math > mjx-container")].filter(formula => {
    const box = formula.parentElement;
    return formula.offsetWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "auto";
}).map(formula => formula.textContent.slice(0, 80))"""


@seen(PAGES, "phone")
def test_page_fits_a_phone(tab):
    tab.evaluate(UNFOLD)
    tab.wait_for_timeout(200)
    assert tab.evaluate(LOST) == [], "formulas in a line that are cut and cannot be scrolled"
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]
    clipped = tab.evaluate(CLIPPED)
    assert clipped == [], "equations that do not show their start, or cannot be scrolled to their end"


def test_code_of_88_columns_needs_no_scrolling(visit):
    tab = visit(CHAPTERS[0])
    room, width = tab.evaluate("""() => {
        const box = document.querySelector(".cell_input pre"), line = document.createElement("span");
        line.textContent = "x".repeat(88);
        box.prepend(line);
        const style = getComputedStyle(box), padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
        return [box.clientWidth - padding, line.getBoundingClientRect().width];
    }""")
    assert width <= room


# Code of chapters has at most 88 columns by another test, but for the address in each first cell.
WIDER = """() => [...document.querySelectorAll(":is(.cell_output, .highlight, .pst-scrollable-table-container)")]
    .filter(box => !box.closest(".cell_input"))
    .filter(box => [box, ...box.querySelectorAll("div, pre")].some(e => e.scrollWidth > e.clientWidth + 1))
    .map(box => box.textContent.trim().slice(0, 80))"""


@seen(PAGES, "light")
def test_tables_and_printed_lines_are_no_wider_than_the_page(tab):
    tab.evaluate(UNFOLD)
    assert tab.evaluate(WIDER) == []


@seen(CHAPTERS, "light")
def test_the_notebook_can_be_taken_along(tab, site):
    name = notebook(tab).name
    links = tab.evaluate("[...document.querySelectorAll('a')].map(a => a.href)")
    assert colab(address(), name) in links
    downloads = [link for link in links if link.startswith("file:") and link.endswith(name)]
    assert downloads
    source = site / "_sources" / "notebooks" / name
    assert source.read_bytes() == notebook(tab).read_bytes()
    assert any(Path(link.removeprefix("file://")) == source for link in downloads)


def test_every_chapter_is_listed():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {Path(page).name for page in CHAPTERS}
