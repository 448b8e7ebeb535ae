"""Rules of the code that its text alone shows, and proof that each notices when it is broken."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ditbook"
LONGEST = 300  # lines of a module

# What the modules of each part may import from the package beside their own part; models may not import one another.
MAY_IMPORT = {
    "rng": set(),
    "data": {"rng"},
    "layers": {"rng"},
    "models": {"layers", "rng"},
    "diffusion": {"rng"},
    "objectives": {"rng"},
    "metrics": {"layers", "rng"},
    "generation": {"layers", "rng"},
    "judges": {"layers", "data", "objectives", "rng", "metrics"},
    "convert": {"models"},
    "weights": {"models", "judges"},
    "results": set(),
    "plotting": set(),
    "pipeline": {"weights", "models", "diffusion", "rng", "data"},
}
MAY_IMPORT["training"] = set(MAY_IMPORT) - {"plotting"}
MAY_IMPORT["cli"] = MAY_IMPORT["__main__"] = {*MAY_IMPORT, "training", "cli"}

# Words that say nothing to someone who looks a docstring up, and where they are the subject themselves.
WORDS = {
    r"look(?!(?:s|ed|ing)?[ -]up\b)(?:s|ed|ing)?": (),
    r"share of": (),
    r"paint\w*": ("data/drawing.py",),
    r"pictures?": ("data/drawing.py",),
    r"leash|told|the design|asked|answered|nobody|house": (),
}


def python(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(source: str, module: str) -> Iterator[str]:
    """Full names of what a module of the package imports from it, anywhere in its code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "ditbook")


def forbidden_imports(source: str, module: str) -> list[str]:
    """Imports that the table does not allow; `module` is a full name, a package's ending in `__init__`."""
    own = module.split(".")[1:]
    wrong = []
    for name in imports(source, module):
        part, *rest = [*name.split(".")[1:], "", ""]
        if part in ("", "__version__"):
            continue
        allowed = part in MAY_IMPORT.get(own[0], ()) or part == own[0]
        if not allowed or (part == "models" and own[0] == "models" and rest[0] != own[1]):
            wrong.append(f"{module} imports {name}")
    return wrong


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


@pytest.mark.parametrize("path", python("src/ditbook"), ids=named)
def test_imports_run_one_way(path):
    assert forbidden_imports(path.read_text(encoding="utf-8"), module_name(path)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.dit", "from ditbook.models.vit import ViT"),
        ("models.dit", "from ditbook.models import vit"),
        ("models.dit", "from . import vit"),
        ("models.dit", "from .vit import ViT"),
        ("models.dit", "import ditbook.data.shapes as shapes"),
        ("models.dit", "def f():\n    from ditbook import data"),
        ("models.dit", "if TYPE_CHECKING:\n    from ditbook.diffusion.gaussian import GaussianDiffusion"),
        ("diffusion.samplers", "from ditbook.layers import mlp"),
        ("metrics.fid", "from ..models import vit"),
        ("training.loop", "from ditbook import plotting"),
        ("rng", "from ditbook import data"),
        ("__init__", "from ditbook import data"),
        ("a_new_part", "from ditbook import rng"),
    ],
)
def test_a_forbidden_import_is_noticed(module, source):
    assert len(forbidden_imports(source, f"ditbook.{module}")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.dit", "import torch\nfrom ditbook.layers.mlp import MLP\nfrom ditbook.rng import randn"),
        ("diffusion.samplers", "from ditbook.diffusion import gaussian\nfrom .gaussian import GaussianDiffusion"),
        ("training.tasks.digits", "from ditbook import weights, data\nfrom .. import loop"),
        ("cli", "from ditbook import plotting, training"),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert forbidden_imports(source, f"ditbook.{module}") == []


def documented_imports(text: str) -> dict[str, set[str]]:
    """The table of CONTRIBUTING.md."""
    found = {}
    for parts, allowed in re.findall(r"^\| (`.*`) \| (.*) \|$", text, re.MULTILINE):
        names = set(re.findall(r"`(\w+)`", allowed))
        for part in re.findall(r"`(\w+)`", parts):
            found[part] = set(MAY_IMPORT) - names - {"__main__", part} if "everything" in allowed else names
    return found


def test_the_table_is_documented():
    table = documented_imports((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert table == {part: allowed - {part} for part, allowed in MAY_IMPORT.items()}


def test_the_package_imports_plotting_in_its_commands_alone():
    assert {part for part, allowed in MAY_IMPORT.items() if "plotting" in allowed} == {"cli", "__main__"}


def generator_with_device(source: str) -> list[int]:
    """Lines of calls that name a generator and a device: the generator's own is the only one that works."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if {"generator", "device"} <= {word.arg for word in call.keywords}]


def code_cells(path: Path) -> str:
    """The code of a notebook, without the lines that are IPython's own."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.MULTILINE)


@pytest.mark.parametrize("path", python("src", "tools", "tests", "benchmarks"), ids=named)
def test_no_call_names_a_generator_and_a_device(path):
    assert generator_with_device(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=named)
def test_no_cell_names_a_generator_and_a_device(path):
    assert generator_with_device(code_cells(path)) == []


def test_a_generator_with_a_device_is_noticed(tmp_path):
    bad = "x = torch.randn(3, device=y.device,\n    generator=generator)"
    assert generator_with_device(f"{bad}\ntorch.Generator(device='cpu')\nrandn((3,), generator=generator)") == [1]
    cells = [{"cell_type": "code", "source": ["if missing:\n", "    %pip install it\n", bad]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [*cells, {"cell_type": "markdown", "source": "# Title"}]}))
    assert generator_with_device(code_cells(tmp_path / "a.ipynb")) == [3]


@pytest.mark.parametrize("path", python("src", "tools", "tests", "benchmarks"), ids=named)
def test_a_module_reads_in_one_sitting(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST


def remarks(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring and comment."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def empty_words(source: str, path: str) -> list[str]:
    """Words of the list in the docstrings and comments of a module; `path` is relative to the package."""
    banned = [form for form, where in WORDS.items() if not any(map(path.startswith, where))]
    search = re.compile(rf"\b(?:{'|'.join(banned)})\b", re.IGNORECASE)
    return [f"line {n}: {word}" for n, text in remarks(source) for word in search.findall(" ".join(text.split()))]


@pytest.mark.parametrize("path", python("src/ditbook"), ids=named)
def test_docstrings_use_the_words_of_the_field(path):
    assert empty_words(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()) == []


@pytest.mark.parametrize(
    "text",
    ["Look at it", "what it looks like", "looked at", "looking", "the share\n    of labels", "paint", "Painted",
     "a picture", "the pictures", "a leash", "told", "the design", "asked", "answered", "Nobody",
     "house"],
)  # fmt: skip
def test_an_empty_word_is_noticed(text):
    for source in (f'"""It.\n\n    {text}."""', f'def f():\n    """{text}"""', f'class A:\n    """{text}"""'):
        assert len(empty_words(source, "layers/mlp.py")) == 1
    assert len(empty_words(f"x = 1  # {' '.join(text.split())}", "layers/mlp.py")) == 1


def test_other_words_pass():
    text = "look up, looks-up, looked up, a look-up, designed, the warehouse, shares of"
    assert empty_words(f'"""{text}"""\nx = "a picture that nobody told"', "layers/mlp.py") == []
    assert empty_words('"""The picture is painted and drawn."""', "data/drawing.py") == []
    assert len(empty_words('"""A picture."""', "data/shapes.py")) == 1


def test_environments_are_made_anew():
    """Over one of another version of Python, venv keeps the old interpreter unless it is told to clear the folder."""
    lines = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "-m venv " in line]
    assert len(lines) == 4
    for line in lines:
        assert line.count("-m venv ") == line.count("-m venv --clear "), line
