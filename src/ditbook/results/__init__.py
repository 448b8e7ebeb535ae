"""Measurements of long experiments: one JSON file for each.

`python tools/experiments.py` measures them again.
"""

import json
from importlib import resources
from typing import Any


def names() -> list[str]:
    """The experiments that `load` knows."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load(name: str) -> list[dict[str, Any]]:
    """The rows of an experiment, one for each measurement, in the order in which they were taken.

    Raises:
        ValueError: no such experiment.
    """
    if name not in names():
        raise ValueError(f"no experiment named {name!r}; there are {', '.join(names())}")
    return json.loads((resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8"))
