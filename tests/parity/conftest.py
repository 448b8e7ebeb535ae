"""Models of reference libraries, of the size of ours."""

import pytest

from ditbook.convert.dit import diffusers_config


@pytest.fixture(scope="session")
def dit_twin():
    """A function from our DiTConfig to diffusers' DiT of the same size, with fresh weights."""
    diffusers = pytest.importorskip("diffusers")

    def make(config):
        return diffusers.DiTTransformer2DModel(**diffusers_config(config)).eval()

    return make
