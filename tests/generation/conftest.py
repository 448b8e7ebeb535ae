"""A tiny model whose every text can be listed."""

import pytest
import torch

BOS, V = 0, 4


@pytest.fixture
def table_model():
    """A function from a seed and a batch size to the step and the first state of a model."""
    return make


def make(seed, batch=1):
    """The next token depends on the last one and on all before it, through a sum in the state."""
    tables = torch.randn(batch, 8, V, V, generator=torch.Generator().manual_seed(seed)) * 2
    tables[:, :, :, BOS] = -30  # never written

    def step(token, state):
        history = (3 * state["history"] + token) % 8
        return state["table"][torch.arange(len(token)), history, token], {**state, "history": history}

    return step, {"table": tables, "history": torch.zeros(batch, dtype=torch.long)}
