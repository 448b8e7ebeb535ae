"""The built site and a browser to read it with."""

import os

import build_book
import chromium
import print_book
import pytest


@pytest.fixture(scope="session")
def site():
    """Folder of the built pages; they are built if they are missing or older than what they are made from."""
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
def pdf(site, browser):
    """The book as one PDF; it is printed if it is missing or older than the pages."""
    if not print_book.PDF.exists() or print_book.PDF.stat().st_mtime < build_book.INDEX.stat().st_mtime:
        print_book.publish(browser)
    return print_book.PDF
