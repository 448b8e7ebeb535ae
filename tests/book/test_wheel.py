"""What Colab does: install the package alone beside what is there, and run one notebook in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell("import ditbook; print(ditbook.__file__)"))
NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False).execute()
print(notebook.cells[-1].outputs[0].text.strip())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy that holds what a clone holds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Python of a new environment: the wheel, and the dependencies of this one, but not its editable ditbook."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site_packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A path named in a .pth file is searched, but the .pth files in it are not read: no editable install comes along.
    Path(site_packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert "ditbook" not in run(python, "-c", "import importlib.util; print(importlib.util.find_spec('ditbook') or '')")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        wheel,
    )
    return python


def run(*command, **options):
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment(), **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def environment():
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JUPYTER", "VIRTUAL_ENV"))
    }
    return kept | {"TQDM_DISABLE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def test_wheel_holds_everything_of_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "ditbook").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= names
    assert {"ditbook/weights/dit-digits.safetensors", "ditbook/weights/unet-digits.safetensors"} <= names
    assert not [name for name in names if not name.startswith(("ditbook/", "ditbook-"))]


def test_wheel_asks_for_nothing_that_colab_would_have_to_upgrade(wheel):
    file = zipfile.ZipFile(wheel)
    metadata = file.read(next(name for name in file.namelist() if name.endswith("METADATA"))).decode()
    needs = [
        line.removeprefix("Requires-Dist: ").split(";")[0]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    assert needs
    assert not [need for need in needs if "==" in need or "<" in need]


def test_weights_and_data_load_from_the_wheel(python, tmp_path):
    script = (
        "import ditbook, json; from ditbook import weights; from ditbook.data import digits;"
        "[weights.load(name) for name in weights.names()];"
        "print(json.dumps([ditbook.__file__, weights.names(), len(digits.load('validation'))]))"
    )
    file, names, count = json.loads(run(python, "-c", script, cwd=tmp_path))
    assert Path(file).is_relative_to(python.parents[1])
    assert {"dit-digits", "unet-digits"} <= set(names)
    assert count == 299


@pytest.mark.skipif(not NOTEBOOKS, reason="there is no notebook yet")
def test_a_notebook_alone_runs_in_an_empty_folder(python, tmp_path):
    notebook = shutil.copy(NOTEBOOKS[-1], tmp_path)
    used = run(python, "-c", RUN, notebook, cwd=tmp_path).splitlines()[-1]
    assert Path(used).is_relative_to(python.parents[1])
    assert [path.name for path in tmp_path.iterdir()] == [Path(notebook).name], "the notebook wrote files"


def test_the_command_trains_samples_and_lists(python, tmp_path):
    ditbook = python.parent / "ditbook"
    run(ditbook, "train", "dit-digits", "--steps", "3", cwd=tmp_path)
    run(ditbook, "sample", "dit-digits", "--labels", "3", "--out", "shipped.png", cwd=tmp_path)
    run(ditbook, "sample", "dit-digits.safetensors", "--labels", "3", "--out", "own.png", cwd=tmp_path)
    assert "dit-digits: " in run(python, "-m", "ditbook", "weights", cwd=tmp_path)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["dit-digits.safetensors", "own.png", "runs", "shipped.png"]
    code = "from ditbook import weights; print(weights.metadata('dit-digits.safetensors')['note'])"
    assert run(python, "-c", code, cwd=tmp_path) == "3 of the recipe's 6,000 steps\n"
