"""What every test run needs, with `make test` or without: no progress bar in what is compared, nothing downloaded."""

import os

os.environ["TQDM_DISABLE"] = "1"  # read by tqdm itself, also in the kernels that nbval starts
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
