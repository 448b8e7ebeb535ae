"""What every test run needs, with `make test` or without: no progress bar in what is compared, nothing downloaded.

Tests and chapters run side by side, a process for each core, each file whole in one of them.
"""

import os

os.environ["TQDM_DISABLE"] = "1"  # read by tqdm itself, also in the kernels that nbval starts
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Read when torch is imported, also in kernels: one thread each, and threads that wait leave the core to the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(items):
    """The longest files first, so that none of them is left over at the end: pages, then chapters, then the rest."""

    def rank(item):
        return 0 if item.path.name == "test_site.py" else 1 if item.path.suffix == ".ipynb" else 2

    items.sort(key=rank)
