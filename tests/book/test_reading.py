"""What a reader does with the built pages: search, unfold, answer, slide, and walk by the keyboard."""

import json
from urllib.parse import urlencode

import pytest
from print_book import outline

pytestmark = pytest.mark.site

PAGES = [page for _, pages in outline() for page in pages]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]


def test_the_first_page_leads_to_the_book(browser, site):
    tab = browser.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.wait_for_url("**/book/index.html")
    assert "From RNN to Diffusion Transformers" in tab.title()
    tab.close()


def test_search_finds_adaln(visit):
    tab = visit("search")
    tab.goto(tab.url.split("?")[0] + "?q=adaLN")
    tab.wait_for_selector("#search-results a[href*='16_dit']", timeout=15_000)
    assert tab.outside == []


def test_search_finds_every_term_of_the_glossary(visit, site):
    tab = visit("book/glossary")
    terms = tab.locator("dl.glossary > dt").evaluate_all("terms => terms.map(term => term.firstChild.textContent)")
    assert len(terms) > 150
    tab.goto((site / "search.html").as_uri())
    for term in terms:
        typed = term.replace("’", "'")  # which keyboards have
        tab.goto(tab.url.split("?")[0] + "?" + urlencode({"q": typed}))
        tab.wait_for_selector("#search-results a[href*='glossary.html#term-']", timeout=15_000)


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
