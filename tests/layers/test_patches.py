import pytest
import torch
from torch import nn

from ditbook.convert.dit import to_official
from ditbook.layers.embeddings import sincos_2d
from ditbook.layers.patches import PatchEmbed, patchify, unpatchify
from ditbook.models.dit import DiT, DiTConfig


@pytest.mark.equation("16.1", of="ditbook.layers.patches.patchify", against="pixels picked one by one")
def test_every_pixel_lands_where_it_should():
    x = torch.arange(2 * 3 * 6 * 4).view(2, 3, 6, 4)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 6, 12)
    for b in range(2):
        for c in range(3):
            for row in range(6):
                for column in range(4):
                    token = (row // 2) * 2 + column // 2
                    place = ((row % 2) * 2 + column % 2) * 3 + c
                    assert tokens[b, token, place] == x[b, c, row, column]


@pytest.mark.equation(
    "16.2", of="ditbook.models.dit.DiT", against="a convolution with stride p, plus the position table"
)
def test_patch_embedding_is_a_convolution():
    torch.manual_seed(0)
    model = DiT(DiTConfig(size=8, channels=3, patch=2, width=16, depth=1, heads=2, num_classes=3))
    nn.init.normal_(model.patch_embed.bias)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.randn(2, 3, 8, 8)
    model(x, torch.tensor([0, 1]), torch.tensor([0, 1]))
    state = to_official(model)
    weight, bias = state["x_embedder.proj.weight"], state["x_embedder.proj.bias"]
    conv = nn.functional.conv2d(x, weight, bias, stride=2)  # (B, D, h, w)
    wanted = conv.flatten(2).transpose(1, 2) + sincos_2d(16, 4).float()
    torch.testing.assert_close(seen[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_there_and_back(patch):
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(unpatchify(patchify(x, patch), patch, 3), x)


@pytest.mark.parametrize("shape", [(1, 1, 9, 8), (1, 1, 8, 9)])
def test_sides_that_are_no_multiples(shape):
    with pytest.raises(ValueError, match=rf"{shape[2]}×{shape[3]} pixels cannot be cut into 4×4.*multiples of 4"):
        patchify(torch.zeros(shape), 4)


def test_tokens_that_form_no_image():
    with pytest.raises(ValueError, match="6 tokens do not form a square grid"):
        unpatchify(torch.zeros(1, 6, 4), 2, 1)
    with pytest.raises(ValueError, match="a token holds 4 numbers, but 3 channels of 2×2 pixels need 12"):
        unpatchify(torch.zeros(1, 4, 4), 2, 3)


def test_patch_embedding_is_one_linear_map_of_each_patch():
    layer, x = PatchEmbed(8, 3, 4, 5), torch.randn(2, 3, 8, 8)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert torch.equal(layer(x), nn.functional.linear(patchify(x, 4), layer.weight, layer.bias))
    assert PatchEmbed(8, 3, 4, 5, bias=False).bias is None
    for wrong in (torch.zeros(2, 3, 12, 12), torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"this model takes|expected floating-point"):
            layer(wrong)
