"""Datasets of the Hugging Face hub, with an error within 3 seconds where there is no network."""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

PATIENCE = 2.0  # seconds that a connection to the hub may take, so that an error comes within 3


def load(name: str, split: str, streaming: bool) -> Dataset | IterableDataset:
    """Load a dataset, once the hub takes a connection: without one, `datasets` alone tries for half a minute.

    Args:
        name: the id of the dataset, "ylecun/mnist".
        split: which part.
        streaming: read the rows while they are used, instead of downloading all of them first.

    Raises:
        ConnectionError: no connection to the hub within 3 seconds.
    """
    import datasets

    message = (
        f"cannot reach the Hugging Face hub to load {name!r} (and no folder has that name). "
        "Without a network, use the digits that come with the package: `ditbook.data.digits.load()`"
    )
    if not datasets.config.HF_HUB_OFFLINE and not _hub_answers():
        raise ConnectionError(message)
    try:
        return datasets.load_dataset(name, split=split, streaming=streaming)
    except ConnectionError as error:
        raise ConnectionError(message) from error


def _hub_answers() -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection within `PATIENCE`."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    address = urllib.request.getproxies().get("https", address)
    parts = urlsplit(address if "//" in address else "//" + address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, port), timeout=PATIENCE).close()
        except OSError:
            return
        answered.set()

    # A thread, because looking up a name takes no timeout, and each address of a name would get one of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()
