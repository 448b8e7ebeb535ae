import pytest
import torch

from ditbook.layers.modulation import layer_norm, modulate


@pytest.mark.equation("16.6", of="ditbook.layers.modulation.modulate", against="x (1 + scale) + shift, token by token")
def test_modulate():
    x, shift, scale = torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(2, 4)
    out = modulate(x, shift, scale)
    for b in range(2):
        for token in range(3):
            torch.testing.assert_close(out[b, token], x[b, token] * (1 + scale[b]) + shift[b])
    assert torch.equal(modulate(x, torch.zeros(2, 4), torch.zeros(2, 4)), x)


def test_layer_norm_has_mean_zero_and_variance_one():
    out = layer_norm(3 + 5 * torch.randn(4, 7, 32))
    torch.testing.assert_close(out.mean(-1), torch.zeros(4, 7), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(-1, correction=0), torch.ones(4, 7), rtol=1e-4, atol=0)
