"""What every test run needs, with `make test` or without: no progress bar in what is compared, nothing downloaded.

Tests and chapters run side by side, a process for each core, each file whole in one of them.
"""

import os
from collections import Counter
from pathlib import PurePosixPath

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


def pytest_terminal_summary(terminalreporter):
    """Seconds of each part of the suite, added up over the processes that ran side by side."""
    spent = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if hasattr(report, "duration"):
            spent[str(PurePosixPath(report.nodeid.split("::")[0]).parent)] += report.duration
    terminalreporter.section("seconds by part")
    for part, seconds in spent.most_common():
        terminalreporter.write_line(f"{seconds:7.0f} s  {part}")
