"""Build the book into _build/html, warnings as errors: python tools/build_book.py

MathJax is copied out of its Python package first, and the weights of the network that paints in the pages out of ours,
so that built pages ask no other host for anything and no copy of either has to be committed.
"""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pack_weights

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "_build" / "html" / "index.html"
MATHJAX = ROOT / "book" / "static" / "vendor" / "mathjax"
PARTS = ("output/chtml/fonts/woff-v2", "input/tex/extensions")  # what tex-chtml.js may load, about 1 MB
WEIGHTS = f"src/ditbook/weights/{pack_weights.NAME}.safetensors"
SOURCES = ("_config.yml", "_toc.yml", "book/**/*", "notebooks/*.ipynb", "src/ditbook/**/*.py", WEIGHTS)


def stage_mathjax() -> None:
    """Copy the needed 2 of the package's 24 MB to a folder that git ignores."""
    script = MATHJAX / "tex-chtml.js"
    if script.exists():
        return
    files = importlib.metadata.files("sphinx-mathjax-offline") or []
    installed = next(Path(str(file.locate())) for file in files if file.name == script.name)
    shutil.rmtree(MATHJAX, ignore_errors=True)
    for part in PARTS:
        shutil.copytree(installed.parent / part, MATHJAX / part)
    shutil.copy(installed, script)


def outdated() -> bool:
    """Whether the built site is missing, or older than something it is made from."""
    if not INDEX.exists():
        return True
    built = INDEX.stat().st_mtime
    return any(path.stat().st_mtime > built for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file())


def build() -> int:
    """Build everything anew; an incremental run would not repeat the warnings of pages that did not change."""
    stage_mathjax()
    pack_weights.pack()
    shutil.rmtree(ROOT / "_build", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "--all", "-W", "-n", "--keep-going"]
    status = subprocess.run(command, cwd=ROOT).returncode
    if status == 0:
        mend_references()
    return status


def mend_references() -> None:
    """Docutils marks references by a role that ARIA 1.2 has dropped; in a list they are its items."""
    page = INDEX.parent / "book" / "references.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace('role="doc-biblioentry"', 'role="listitem"'), encoding="utf-8")


if __name__ == "__main__":
    status = build()
    print(f"\nThe book is built. Open {INDEX.as_uri()}" if status == 0 else "\nThe book was NOT built; see above.")
    sys.exit(status)
