import pytest
import torch

from ditbook.models.dvae import DVAE, DVAEConfig

SMALL = {"vocabulary": 11, "width": 8, "start": 6, "groups": 3, "blocks": 1}


def make(**changes):
    torch.manual_seed(0)
    return DVAE(DVAEConfig(**SMALL, **changes)), torch.rand(2, 3, 16, 24) * 2 - 1


@pytest.mark.parametrize("code_width", [None, 5])
def test_shapes(code_width):
    model, x = make(code_width=code_width)
    assert model.config.factor == 4
    assert model.encode(x).shape == (2, 11, 4, 6)
    tokens = model.tokens(x)
    assert tokens.shape == (2, 24)
    assert torch.equal(tokens.view(2, 4, 6), model.encode(x).argmax(dim=1))
    images = model.images(tokens, width=6)
    assert images.shape == x.shape
    assert images.abs().max() <= 1


def test_published_sizes():
    with torch.device("meta"):
        model = DVAE(DVAEConfig())
    assert model.config.factor == 8
    assert model.encode(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 8192, 32, 32)
    assert sum(p.numel() for p in model.encoder.parameters()) == 53_786_240
    assert sum(p.numel() for p in model.decoder.parameters()) == 43_829_766


def test_the_codebook_is_the_decoders_first_convolution():
    model, x = make()
    tokens = model.tokens(x).view(2, 4, 6)
    rows = model.decoder.conv_in.weight[:, :, 0, 0].T[tokens] + model.decoder.conv_in.bias  # (B, h, w, D)
    torch.testing.assert_close(model.decoder.conv_in(model.codes(tokens)), rows.movedim(-1, 1))


def test_bad_input_is_refused():
    model, x = make()
    with pytest.raises(ValueError, match=r"takes \(batch, 3, H, W\), both sides divisible by 4"):
        model.encode(x[:, :, :15])
    with pytest.raises(ValueError, match="floating-point"):
        model.encode(x.byte())
    with pytest.raises(ValueError, match="24 tokens do not fill a grid 5 wide"):
        model.images(model.tokens(x), width=5)
    with pytest.raises(ValueError, match="23 tokens do not fill a grid 4 wide"):
        model.images(torch.zeros(1, 23, dtype=torch.long))
    with pytest.raises(ValueError, match="width 9 is not divisible"):
        DVAEConfig(width=9)
    with pytest.raises(ValueError, match="code_width 0 must be"):
        DVAEConfig(code_width=0)
