"""Write the address of the repository everywhere it is named: python tools/publish_address.py URL

The address stands once as the truth, in _config.yml (`repository: url:`). Badges, links, the first cell of each
notebook, and the address of the published pages are derived from it.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("_config.yml", "README.md", "CONTRIBUTING.md", "CITATION.cff", "book/*.md", "notebooks/*.ipynb")
FORM = re.compile(r"https://github\.com/[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
COLAB = "https://colab.research.google.com/github/"


def address(root: Path = ROOT) -> str:
    """The repository's address, as _config.yml states it."""
    found = re.search(r"^  url: (\S+)$", (root / "_config.yml").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise ValueError("_config.yml must state the address as `  url: https://github.com/ACCOUNT/REPOSITORY`")
    return found[1]


def first_cell(url: str) -> str:
    """The code cell that every notebook starts with, so that it runs in Colab."""
    return (
        "import importlib.util\n"
        'if importlib.util.find_spec("ditbook") is None:\n'
        f'    %pip install -q --no-deps "git+{url}"'
    )


def colab(url: str, notebook: str) -> str:
    """Where Colab opens a notebook of the repository."""
    return f"{COLAB}{url.removeprefix('https://github.com/')}/blob/main/notebooks/{notebook}"


def pages(url: str) -> str:
    """Where GitHub Pages shows what the repository's workflow publishes."""
    account, name = url.removeprefix("https://github.com/").split("/")
    host = f"{account.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def publish(url: str, root: Path = ROOT) -> list[Path]:
    """Write `url` in the place of the address so far; return the files that changed.

    Raises:
        ValueError: not an address Colab can open notebooks from.
    """
    url = url.removesuffix("/").removesuffix(".git")
    if not FORM.fullmatch(url):
        raise ValueError(f"{url!r} must look like https://github.com/ACCOUNT/REPOSITORY, which is what Colab opens")
    old, changed = address(root), []
    pairs = [
        (old, url),
        (pages(old), pages(url)),
        (COLAB + old.removeprefix("https://github.com/"), COLAB + url.removeprefix("https://github.com/")),
    ]
    for path in sorted(path for pattern in FILES for path in root.glob(pattern)):
        text = before = path.read_text(encoding="utf-8")
        for was, now in pairs:
            text = re.sub(re.escape(was) + r"(?![\w-])", now.replace("\\", r"\\"), text)
        if text != before:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def named(root: Path = ROOT) -> dict[Path, set[str]]:
    """The addresses of this kind of repository that each file names, for the test that holds them equal."""
    name = address(root).rsplit("/", 1)[1]
    form = re.compile(rf"(?:https://github\.com/|{re.escape(COLAB)})([\w-]+/{re.escape(name)})(?![\w-])")
    files = (path for pattern in FILES for path in root.glob(pattern))
    return {path: set(form.findall(path.read_text(encoding="utf-8"))) for path in files}


def first_code_cell(path: Path) -> str:
    """The source of a notebook's first code cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


if __name__ == "__main__":
    try:
        for path in publish(sys.argv[1] if len(sys.argv) > 1 else ""):
            print("written:", path.relative_to(ROOT))
    except ValueError as error:
        sys.exit(f"make publish-address URL=…: {error}")
