import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.complexity import Complexity
from ditbook.metrics import complexity
from ditbook.models.vit import ViT, ViTConfig

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
MPS = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an Apple GPU")


class Small(nn.Module):
    """A linear map and a norm, with a table that is not trained."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 7), nn.LayerNorm(7)
        self.register_buffer("table", torch.zeros(3, 7))

    def forward(self, x, *, more):
        return self.norm(self.norm(self.linear(x) + self.table)) + more


def test_count_macs_of_one_linear_map():
    assert complexity.count_macs(nn.Linear(5, 7), torch.zeros(3, 5)) == 3 * 5 * 7


def test_all_counts_by_hand():
    wanted = Complexity(macs=3 * 5 * 7, norms=2 * 3 * 7, trainable=5 * 7 + 7 + 14, fixed=21)
    for device in ("cpu", "meta"):
        x, more = torch.zeros(3, 5, device=device), torch.zeros(1, device=device)
        assert complexity.measure(Small().to(device), x, more=more) == wanted


def test_any_callable_can_be_counted():
    a, b = torch.zeros(2, 3), torch.zeros(3, 4)
    assert complexity.count_macs(lambda x: x @ b, a) == 24


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU), pytest.param("mps", marks=MPS)])
@pytest.mark.parametrize("kind", ["plain", "mask", "causal", "cross", "bfloat16"])
def test_attention_counts_the_same_on_every_device(device, kind):
    """Each device has fused kernels of its own, and PyTorch's counter knows only some of them."""
    B, H, T, S, E = 2, 4, 5, 7 if kind == "cross" else 5, 8
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    q, k = (torch.zeros(B, H, length, E, dtype=dtype, device=device) for length in (T, S))
    options = {"is_causal": True} if kind == "causal" else {}
    if kind == "mask":
        options["attn_mask"] = torch.ones(T, S, dtype=torch.bool, device=device)
    assert complexity.count_macs(F.scaled_dot_product_attention, q, k, k, **options) == 2 * B * H * T * S * E


@pytest.mark.parametrize(
    "config",
    [ViTConfig(size=8, channels=1, patch=4, width=64, depth=3, heads=4), ViTConfig(size=8, patch=4, width=8, heads=2)],
)
def test_a_model_counts_the_same_with_and_without_numbers(config):
    image = torch.zeros(1, config.channels, config.size, config.size)
    assert complexity.measure(ViT(config), image) == config.complexity()


@pytest.mark.parametrize(
    "layer",
    [
        nn.MultiheadAttention(8, 2, batch_first=True),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.LSTM(8, 3),
    ],
)
def test_no_product_is_passed_over_in_silence(layer):
    """Where a device hides the products of a layer in one kernel, the count is refused."""
    inputs = [torch.zeros(2, 5, 8)] * (3 if isinstance(layer, nn.MultiheadAttention) else 1)
    in_full = complexity.count_macs(layer.eval().to("meta"), *(x.to("meta") for x in inputs))
    with contextlib.suppress(NotImplementedError):
        assert complexity.count_macs(layer.to_empty(device="cpu"), *inputs) == in_full
