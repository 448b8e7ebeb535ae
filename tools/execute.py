"""Run notebooks in place and store their outputs: python tools/execute.py [NOTEBOOK ...]

A name may be a path, `16_dit`, or `16`; without names all notebooks run. What is stored depends on the code alone:
no timestamps, no progress bars, no version of Python. The alternative text and the width that each image output
carries are copied into the cell's metadata, where the built page takes them from.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
IMAGES = ("image/png", "image/jpeg")


def find(name: str) -> Path:
    """The notebook that a path, a stem, or a chapter's number names."""
    if Path(name).is_file():
        return Path(name)
    found = [path for path in sorted(FOLDER.glob("*.ipynb")) if name in (path.stem, path.name, path.stem.split("_")[0])]
    if len(found) != 1:
        raise SystemExit(f"no notebook {name!r}; there are {', '.join(sorted(p.stem for p in FOLDER.glob('*.ipynb')))}")
    return found[0]


def image_options(cell: nbformat.NotebookNode) -> dict[str, str]:
    """What the outputs of a cell say of their images: alternative text, joined if there are several, and width."""
    about = [
        out.get("metadata", {}).get(kind, {}) for out in cell.outputs for kind in IMAGES if kind in out.get("data", {})
    ]
    options = {}
    if alt := "; ".join(dict.fromkeys(each["alt"] for each in about if each.get("alt"))):
        options["alt"] = alt
    widths = {each["width"] for each in about if each.get("width")}
    if len(widths) == 1:
        options["width"] = f"{widths.pop()}px"
    return options


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Leave nothing in a notebook that differs between two runs of the same code."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("mystnb", None)
        if options := image_options(cell):
            cell.metadata["mystnb"] = nbformat.from_dict({"image": options})


def execute(path: Path) -> float:
    """Run one notebook in the folder it stands in, store it, and return the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    seconds = time.perf_counter() - start
    normalise(notebook)
    nbformat.write(notebook, path)
    return seconds


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    paths = [find(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        try:
            print(f"{path.stem}: {execute(path):.0f} s", flush=True)
        except CellExecutionError as error:
            sys.exit(f"{path.stem} failed, and nothing was stored:\n{error}")
