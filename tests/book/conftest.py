"""The built site, a browser to read it with, and the PDF; what is built is built once for all processes of a run."""

import os

import build_book
import chromium
import print_book
import pytest
from filelock import FileLock

WINDOW, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}
VIEWS = {
    "light": {"viewport": WINDOW, "color_scheme": "light"},
    "dark": {"viewport": WINDOW, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}


@pytest.fixture(scope="session")
def lock(tmp_path_factory):
    """Held by one process of the run at a time."""
    return FileLock(tmp_path_factory.getbasetemp().parent / "build.lock")


@pytest.fixture(scope="session")
def site(lock):
    """Folder of the built pages; they are built if they are missing or older than what they are made from."""
    with lock:
        if build_book.outdated():
            assert build_book.build() == 0, "the book does not build; run `make book` to see why"
    return build_book.INDEX.parent


@pytest.fixture(scope="session")
def browser():
    """Chromium. Without it, a failure in CI and a skip elsewhere."""
    with chromium.opened() as browser:
        if browser is None:
            stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            stop(f"the browser tests need Chromium: install the packages {', '.join(chromium.PACKAGES)}")
        yield browser


@pytest.fixture(scope="session")
def pdf(site, browser, lock):
    """The book as one PDF; it is printed if it is missing or older than the pages."""
    with lock:
        if not print_book.PDF.exists() or print_book.PDF.stat().st_mtime < build_book.INDEX.stat().st_mtime:
            print_book.publish(browser)
    return print_book.PDF


@pytest.fixture
def visit(browser, site):
    """A function that opens a page for one test."""
    opened = []

    def visit(page, view="light"):
        opened.append(open_page(browser, site, page, view))
        return opened[-1]

    yield visit
    for tab in opened:
        tab.close()


@pytest.fixture(scope="module")
def tab(request, browser, site):
    """A page in one view, opened once for all tests that read it; tests may unfold its answers, and nothing else."""
    tab = open_page(browser, site, *request.param)
    yield tab
    tab.close()


def open_page(browser, site, page, view):
    """A page that is drawn, with what it asked of other hosts and the errors it logged."""
    tab = browser.new_page(**VIEWS[view])
    tab.outside, tab.errors = [], []
    local = ("file:", "data:", "blob:")
    tab.on("request", lambda request: request.url.startswith(local) or tab.outside.append(request.url))
    tab.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.goto((site / f"{page}.html").as_uri())
    tab.wait_for_load_state("load")
    tab.evaluate("""async () => {
        if (!document.querySelector("script[src*=mathjax]")) return;
        while (!window.MathJax?.startup?.promise) await new Promise(r => setTimeout(r, 20));
        await MathJax.startup.promise;
    }""")
    return tab
