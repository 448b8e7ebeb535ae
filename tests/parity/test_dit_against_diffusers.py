"""Our DiT against diffusers' on random weights: equal once its two known differences are mended, and not before."""

import pytest
import torch

from ditbook.convert import dit as layouts
from ditbook.models.dit import DiT, DiTConfig

CONFIG = DiTConfig(size=8, channels=4, patch=2, width=48, depth=3, heads=4, num_classes=10)


def random_dit(config=CONFIG):
    """No weight is zero, so that no branch is silent."""
    torch.manual_seed(0)
    model = DiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.eval()


def mend(model, frequencies=True, norm=True):
    for block in model.transformer_blocks:
        if frequencies:
            block.norm1.emb.time_proj.downscale_freq_shift = 0
        if norm:
            block.norm3.eps = 1e-6  # the norm before the MLP


def compare(ours, other, config=CONFIG):
    """The largest difference of the outputs on one batch."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, config.channels, config.size, config.size, generator=generator)
    t, y = torch.tensor([0, 500, 999]), torch.tensor([0, 7, config.num_classes])
    with torch.no_grad():
        a, b = ours(x, t, y), other(x, timestep=t, class_labels=y).sample
    assert a.std() > 0.1  # the outputs say something
    return (a - b).abs().max().item()


@pytest.mark.parametrize("learn_sigma", [True, False])
@pytest.mark.parametrize("patch", [2, 4])
def test_mended_diffusers_gives_the_same_output(dit_twin, learn_sigma, patch):
    config = DiTConfig(
        size=8, channels=4, patch=patch, width=48, depth=3, heads=4, num_classes=10, learn_sigma=learn_sigma
    )
    ours, other = random_dit(config), dit_twin(config)
    other.load_state_dict(layouts.to_diffusers(ours), strict=True)
    mend(other)
    assert compare(ours, other, config) < 2e-5


def test_unmended_diffusers_does_not(dit_twin):
    ours, other = random_dit(), dit_twin(CONFIG)
    other.load_state_dict(layouts.to_diffusers(ours))
    assert compare(ours, other) > 1e-3


def test_mending_the_frequencies_alone_is_not_enough_where_tokens_are_small(dit_twin):
    ours = random_dit()
    with torch.no_grad():  # small tokens, silent first branch: the second norm divides by about √ε
        ours.pos_embed.mul_(1e-3)
        for parameter in (ours.patch_embed.weight, ours.patch_embed.bias):
            parameter.mul_(1e-3)
        for block in ours.blocks:
            block.modulation.weight[2 * 48 : 3 * 48].zero_()
            block.modulation.bias[2 * 48 : 3 * 48].zero_()
    other = dit_twin(CONFIG)
    other.load_state_dict(layouts.to_diffusers(ours))
    other.pos_embed.pos_embed.mul_(1e-3)
    mend(other, norm=False)
    assert compare(ours, other) > 1e-3
    mend(other)
    assert compare(ours, other) < 2e-5


def test_their_weights_load_here(dit_twin):
    torch.manual_seed(3)
    other = dit_twin(CONFIG)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_(std=0.1)
        for block in other.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(other.transformer_blocks[0].norm1.emb.state_dict())
    mend(other)
    ours = random_dit()
    layouts.load_diffusers(ours, other.state_dict())
    assert compare(ours, other) < 2e-5


def test_a_folder_is_one_of_theirs(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    ours = random_dit()
    layouts.to_folder(ours, tmp_path / "dit")
    other = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "dit").eval()
    mend(other)
    assert compare(ours, other) < 2e-5
