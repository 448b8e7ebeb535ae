import math

import pytest
import torch
from torch import nn

from ditbook.layers.mlp import MLP


@pytest.mark.equation("3.8", of="ditbook.layers.mlp.MLP", against="two matrix products around the formula of GELU")
def test_mlp_is_two_linear_maps_around_the_tanh_gelu():
    torch.manual_seed(0)
    mlp, x = MLP(6), torch.randn(2, 3, 6)
    assert mlp.fc1.out_features == 24
    h = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    torch.testing.assert_close(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(mlp(x), mlp.fc2(nn.functional.gelu(h)), atol=1e-7)


def test_an_unknown_gelu_is_refused():
    with pytest.raises(ValueError, match="no GELU 'relu'; there are exact, tanh, quick"):
        MLP(6, gelu="relu")
