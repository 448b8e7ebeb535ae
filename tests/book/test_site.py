"""The built pages, read over file:// in a real browser."""

import json
from pathlib import Path

import axe_playwright_python
import pytest
import yaml
from build_book import ROOT
from publish_address import address, colab

pytestmark = pytest.mark.site

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"]] + [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WINDOW, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def visit(browser, site):
    """A function that opens a page and returns it, with what it asked of other hosts and the errors it logged."""
    opened = []

    def open_page(page, viewport=WINDOW, scheme="light"):
        tab = browser.new_page(viewport=viewport, color_scheme=scheme)
        opened.append(tab)
        tab.outside, tab.errors = [], []
        tab.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:", "blob:")) else tab.outside.append(request.url)
            ),
        )
        tab.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.goto((site / f"{page}.html").as_uri())
        settle(tab)
        return tab

    yield open_page
    for tab in opened:
        tab.close()


def settle(tab):
    """Wait until MathJax, if the page has it, has drawn everything."""
    tab.wait_for_load_state("load")
    tab.evaluate("""async () => {
        if (!document.querySelector("script[src*=mathjax]")) return;
        while (!window.MathJax?.startup?.promise) await new Promise(r => setTimeout(r, 20));
        await MathJax.startup.promise;
    }""")


def test_the_first_page_leads_to_the_book(browser, site):
    tab = browser.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.wait_for_url("**/book/index.html")
    assert "From RNN to Diffusion Transformers" in tab.title()
    tab.close()


@pytest.mark.parametrize("page", PAGES)
def test_page_is_complete_by_itself(visit, page):
    tab = visit(page)
    tab.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
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


@pytest.mark.parametrize("page", CHAPTERS)
def test_mathematics_is_drawn(visit, page):
    tab = visit(page)
    cells = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    tags = sum("".join(cell["source"]).count("\\tag{") for cell in cells if cell["cell_type"] == "markdown")
    assert tab.locator("mjx-container").count() > tags
    assert tab.locator("mjx-mlabeledtr").count() == tags, "numbered equations"
    assert tab.locator("mjx-merror, .MathJax_Error, [data-mjx-error]").count() == 0
    tab.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert tab.evaluate(CUT_OFF) == [], "equations wider than the page of a desktop: break their lines"
    text = tab.evaluate("""() => {
        const copy = document.querySelector("main").cloneNode(true);
        copy.querySelectorAll("pre, code, mjx-container, script").forEach(e => e.remove());
        return copy.textContent;
    }""")
    assert [sign for sign in ("\\[", "\\(", "$$", "\\tag", "\\frac", "<details", "</summary") if sign in text] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", CHAPTERS)
def test_figures_are_shown_as_drawn_and_text_is_readable(visit, page, scheme):
    tab = visit(page, scheme=scheme)
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    filters = tab.evaluate("[...document.querySelectorAll('.cell_output img')].map(i => getComputedStyle(i).filter)")
    assert filters
    assert set(filters) == {"none"}
    assert contrast(tab, "main p") >= 7


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


VIOLATIONS = """async () => {
    const runOnly = {type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]};
    const found = await axe.run(document, {resultTypes: ["violations"], runOnly});
    return found.violations.map(v => `${v.id}, ${v.nodes.length} times: ${v.nodes[0].html.slice(0, 200)}`);
}"""


# Opened cells fade in for 0.3 s, during which their text is paler than it will be.
UNFOLD = """async () => {
    document.querySelectorAll("details").forEach(fold => fold.open = true);
    await Promise.all(document.getAnimations().map(animation => animation.finished));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", [*PAGES, "search"])
def test_page_is_accessible(visit, page, scheme):
    """No violation of WCAG 2.1, levels A and AA, that axe-core finds, with all answers open."""
    tab = visit(page, scheme=scheme)
    tab.wait_for_selector("html[data-quizzes=ready]")
    tab.evaluate(UNFOLD)
    tab.evaluate(AXE)
    assert tab.evaluate(VIOLATIONS) == []


CLIPPED = """() => [...document.querySelectorAll("main mjx-container[display=true]")].filter(equation => {
    const box = equation.closest("div.math");
    const inside = equation.getBoundingClientRect(), room = box.getBoundingClientRect();
    return inside.left < room.left - 1 || (inside.right > room.right + 1 && getComputedStyle(box).overflowX !== "auto");
}).map(equation => equation.textContent.slice(0, 80))"""


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(visit, page):
    tab = visit(page, viewport=PHONE)
    tab.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
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


def test_search_finds_adaln(visit):
    tab = visit("search")
    tab.goto(tab.url.split("?")[0] + "?q=adaLN")
    tab.wait_for_selector("#search-results a[href*='16_dit']", timeout=15_000)
    assert tab.outside == []


def test_the_search_field_leads_to_the_results(visit):
    tab = visit(PAGES[0])
    tab.keyboard.press("Control+k")
    tab.keyboard.type("adaLN")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#search-results a[href*='16_dit']", timeout=15_000)


@pytest.mark.parametrize("page", CHAPTERS)
def test_answers_are_folded_and_open(visit, page):
    tab = visit(page)
    folds = tab.locator("main details:not([class])")
    assert folds.count() >= 6
    first = folds.first
    inside = first.locator("p").first
    assert not inside.is_visible()
    first.locator("summary").click()
    assert inside.is_visible()
    closed = first.evaluate(
        "fold => [...fold.querySelectorAll('pre, mjx-container, p')].every(e => e.textContent.trim().length > 0)"
    )
    assert closed


QUESTIONS = r"""() => [...document.querySelectorAll("main details")].filter(fold =>
    /^\s*Question \d+\./.test(fold.previousElementSibling?.textContent ?? "")).length"""


@pytest.mark.parametrize("page", [*CHAPTERS, "book/part1"])
def test_quiz_questions_can_be_clicked_and_explain(visit, page):
    tab = visit(page)
    tab.wait_for_selector("html[data-quizzes=ready]")
    before = tab.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    quizzes = tab.locator("fieldset.quiz")
    assert quizzes.count() == tab.evaluate(QUESTIONS) >= (3 if page in CHAPTERS else 1)
    for index in range(quizzes.count()):
        quiz = quizzes.nth(index)
        fold = quiz.locator("xpath=following-sibling::details[1]")
        buttons, verdict = quiz.locator("button"), quiz.locator("[aria-live=polite]")
        assert not fold.locator("p").first.is_visible()
        assert [button.strip()[:3] for button in buttons.all_inner_texts()] == ["(a)", "(b)", "(c)", "(d)"]
        right = "abcd".index(fold.evaluate("f => f.textContent.replace('Answer', '').trim()")[1])
        buttons.nth((right + 1) % 4).click()
        assert "wrong" in verdict.inner_text()
        assert fold.locator("p").first.is_visible()
        buttons.nth(right).focus()
        tab.keyboard.press("Enter")
        assert "right" in verdict.inner_text()
        assert buttons.nth(right).get_attribute("data-verdict") == "right"
        assert quiz.locator("[data-verdict]").count() == 1
    assert tab.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == before


def test_without_script_the_folded_answers_remain(browser, site):
    tab = browser.new_page(java_script_enabled=False)
    tab.goto((site / f"{CHAPTERS[0]}.html").as_uri())
    assert tab.locator("fieldset.quiz").count() == 0
    assert tab.locator("p:has-text('Question 1.')").is_visible()
    fold = tab.locator("p:has-text('Question 1.') + details")
    fold.locator("summary").click()
    assert fold.locator("p").first.is_visible()
    tab.close()


@pytest.mark.parametrize(("page", "name"), [("notebooks/10_ddpm", "ch10-noise"), ("notebooks/16_dit", "ch16-guidance")])
def test_the_slider_moves_and_says_where_it_is(visit, page, name):
    tab = visit(page)
    box = tab.locator(f"#{name}")
    labels = json.loads(box.get_attribute("data-labels"))
    dial, shown = box.locator("input"), box.locator("span")
    place = lambda: float(box.locator("[role=img]").evaluate("e => parseFloat(e.style.backgroundPositionX)"))  # noqa: E731
    assert (shown.inner_text(), place()) == (labels[0], 0)
    dial.focus()
    for key, index in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", len(labels) - 1)):
        tab.keyboard.press(key)
        assert shown.inner_text() == dial.get_attribute("aria-valuetext") == labels[index]
        assert place() == pytest.approx(100 * index / (len(labels) - 1), abs=0.1)


def test_the_keyboard_walks_through_a_page_as_one_reads_it(visit):
    """The first stop skips the menus; then each question, its choices in order, and its answer."""
    tab = visit(CHAPTERS[0])
    tab.wait_for_selector("html[data-quizzes=ready]")
    assert tab.locator("[tabindex]:not([tabindex='0'], [tabindex='-1'])").count() == 0, "stops out of order"
    focused = lambda: tab.evaluate("document.activeElement.innerText.trim()")  # noqa: E731
    tab.keyboard.press("Tab")
    assert focused() == "Skip to main content"
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.querySelector('main').contains(document.activeElement)")
    tab.locator("fieldset.quiz button").first.focus()
    seen = []
    for _ in range(5):
        seen.append(focused()[:3])
        tab.keyboard.press("Tab")
    assert seen == ["(a)", "(b)", "(c)", "(d)", "Ans"]


def test_the_theme_can_be_switched(visit):
    tab = visit(PAGES[0])
    seen = set()
    for _ in range(3):
        tab.locator("button.theme-switch-button:visible").first.click()
        seen.add(tab.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_notebook_can_be_taken_along(visit, site, page):
    tab = visit(page)
    name = Path(page).name + ".ipynb"
    links = tab.evaluate("[...document.querySelectorAll('a')].map(a => a.href)")
    assert colab(address(), name) in links
    downloads = [link for link in links if link.startswith("file:") and link.endswith(name)]
    assert downloads
    source = site / "_sources" / "notebooks" / name
    assert source.read_bytes() == (ROOT / "notebooks" / name).read_bytes()
    assert any(Path(link.removeprefix("file://")) == source for link in downloads)


def test_every_chapter_is_listed():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {Path(page).name for page in CHAPTERS}
