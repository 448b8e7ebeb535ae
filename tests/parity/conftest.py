"""Models of reference libraries, of the size of ours."""

import pytest


@pytest.fixture(scope="session")
def dit_twin():
    """A function from our DiTConfig to diffusers' DiT of the same size, with fresh weights."""
    diffusers = pytest.importorskip("diffusers")

    def make(config):
        return diffusers.DiTTransformer2DModel(
            num_attention_heads=config.heads,
            attention_head_dim=config.width // config.heads,
            in_channels=config.channels,
            out_channels=config.out_channels,
            num_layers=config.depth,
            patch_size=config.patch,
            sample_size=config.size,
            num_embeds_ada_norm=config.num_classes,
            norm_elementwise_affine=False,
            activation_fn="gelu-approximate",
            attention_bias=True,
        ).eval()

    return make
