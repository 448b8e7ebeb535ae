import math

import pytest
import torch

from ditbook.layers import embeddings


@pytest.mark.equation(
    "16.5", of="ditbook.layers.embeddings.timestep_embedding", against="sines and cosines from math, number by number"
)
def test_timestep_embedding_number_by_number():
    out = embeddings.timestep_embedding(torch.tensor([0.0, 3.0, 250.0]), 8)
    for row, t in enumerate((0, 3, 250)):
        angles = [t * 10_000 ** (-k / 4) for k in range(4)]
        wanted = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert out[row].tolist() == pytest.approx(wanted, abs=2e-5)


def test_timestep_embedding_anchors():
    out = embeddings.timestep_embedding(torch.tensor([500]), 256)[0]
    anchors = {0: -0.883849, 1: 0.945943, 127: 0.998557, 128: -0.467772, 129: 0.324334, 255: 0.053705}
    for channel, value in anchors.items():
        assert out[channel].item() == pytest.approx(value, abs=3e-5)
    slowest = math.asin(embeddings.timestep_embedding(torch.tensor([1]), 256)[0, 255].item())
    assert slowest == pytest.approx(1.07461e-4, rel=1e-5)


def test_timestep_embedding_of_a_shorter_period():
    out = embeddings.timestep_embedding(torch.tensor([2.0]), 4, max_period=100)[0]
    assert out.tolist() == pytest.approx([math.cos(2), math.cos(0.2), math.sin(2), math.sin(0.2)], abs=1e-6)


@pytest.mark.equation(
    "16.3", of="ditbook.layers.embeddings.sincos_2d", against="sines and cosines from math, number by number"
)
def test_position_table_number_by_number():
    table = embeddings.sincos_2d(8, 3)
    for row in range(3):
        for column in range(3):
            wanted = []
            for position in (column, row):
                angles = [position, position / 100]
                wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert table[3 * row + column].tolist() == pytest.approx(wanted, abs=1e-12)


def test_position_table_anchors():
    table = embeddings.sincos_2d(1152, 16)
    assert table.shape == (256, 1152)
    assert table.dtype == torch.float64
    assert table.sum().item() == pytest.approx(134598.948, abs=1e-3)
    assert table.square().sum().item() == pytest.approx(147456, rel=1e-12)
    quarters = table[0].view(4, 288)
    assert torch.equal(quarters, torch.tensor([0.0, 1.0, 0.0, 1.0]).double()[:, None].expand(4, 288))
    assert [table[1, 0].item(), table[1, 576].item()] == pytest.approx([0.8414710, 0], abs=1e-7)
    assert [table[16, 0].item(), table[16, 576].item()] == pytest.approx([0, 0.8414710], abs=1e-7)

    smaller = embeddings.sincos_2d(384, 16)
    assert smaller.sum().item() == pytest.approx(44720.3386, abs=1e-4)
    assert [smaller[255, 0].item(), smaller[255, 96].item()] == pytest.approx([0.6502878, -0.7596879], abs=1e-7)


def test_sincos_1d_has_sines_first():
    out = embeddings.sincos_1d(4, torch.tensor([0, 2]))
    assert out[0].tolist() == [0, 0, 1, 1]
    assert out[1].tolist() == pytest.approx([math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)])


def test_widths_that_do_not_fit():
    with pytest.raises(ValueError, match=r"timestep_embedding needs an even width.*got 7"):
        embeddings.timestep_embedding(torch.tensor([1]), 7)
    with pytest.raises(ValueError, match=r"sincos_1d needs an even width.*got 5"):
        embeddings.sincos_1d(5, torch.arange(3))
    with pytest.raises(ValueError, match=r"divisible by four.*got 6"):
        embeddings.sincos_2d(6, 4)


def test_timestep_embedding_module_is_two_linear_maps_around_silu():
    torch.manual_seed(0)
    module, t = embeddings.TimestepEmbedding(12), torch.tensor([0, 77])
    first, _, second = module.mlp
    h = embeddings.timestep_embedding(t, 256) @ first.weight.T + first.bias
    wanted = (h * h.sigmoid()) @ second.weight.T + second.bias
    torch.testing.assert_close(module(t), wanted, rtol=1e-4, atol=1e-5)


def test_labels_look_up_rows_and_the_null_class_is_the_last():
    module = embeddings.LabelEmbedding(10, 6)
    y = torch.tensor([0, 9, 10])
    assert module.null == 10
    assert torch.equal(module(y), module.table.weight[y])


@pytest.mark.parametrize("wrong", [-1, 11, 1000])
def test_class_out_of_range(wrong):
    module = embeddings.LabelEmbedding(10, 6)
    with pytest.raises(ValueError, match=rf"class {wrong} is out of range: labels are 0 to 9, and 10 is the null"):
        module(torch.tensor([3, wrong]))
