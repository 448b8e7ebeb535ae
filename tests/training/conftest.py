"""Tiny models train fastest on one thread, on a busy machine by a factor of ten."""

import pytest
import torch

from ditbook.data import captions


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few(monkeypatch):
    """Forty captions in place of thousands; the list says which splits were loaded."""
    loaded, load = [], captions.load
    monkeypatch.setattr(captions, "load", lambda split, size, seed: loaded.append(split) or load(split, 40, seed))
    return loaded
