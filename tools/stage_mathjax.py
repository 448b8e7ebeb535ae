"""Copy the part of MathJax that the book needs out of its Python package: python tools/stage_mathjax.py FOLDER

So that built pages ask no other host for anything, and no copy of MathJax has to be committed.
"""

import importlib.metadata
import shutil
import sys
from pathlib import Path

files = importlib.metadata.files("sphinx-mathjax-offline") or []
script = next(Path(f.locate()) for f in files if f.name == "tex-chtml.js")
target = Path(sys.argv[1])
shutil.rmtree(target, ignore_errors=True)
for part in ("output/chtml/fonts/woff-v2", "input/tex/extensions"):
    shutil.copytree(script.parent / part, target / part)
shutil.copy(script, target / script.name)
