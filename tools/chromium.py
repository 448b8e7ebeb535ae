"""The browser that prints and tests the book: python tools/chromium.py installs it where it is missing.

Nothing fails where it cannot be had: the book is then made without its PDF, and the tests that need it are skipped.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGES = ("chromium", "fonts-dejavu-core")


def find() -> str | None:
    """Where the browser is, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened() -> Iterator[Browser | None]:
    """The browser, or None if there is none."""
    path = find()
    if path is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


if __name__ == "__main__" and find() is None:
    subprocess.run(["sh", Path(__file__).with_name("system_packages.sh"), *PACKAGES])
