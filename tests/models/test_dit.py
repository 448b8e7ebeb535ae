import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.adaln import AdaLNZeroBlock, FinalLayer
from ditbook.layers.embeddings import sincos_2d
from ditbook.models.dit import MODELS, SIZES, DiT, DiTConfig

CONFIG = DiTConfig(size=8, channels=3, patch=2, width=32, depth=2, heads=4, num_classes=10)


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module


def inputs(config=CONFIG, batch=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.channels, config.size, config.size, generator=generator)
    return x, torch.tensor([0, 500, 999])[:batch], torch.tensor([0, 9, 10])[:batch]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dataclasses.replace(CONFIG, learn_sigma=False),
        DiTConfig(size=12, channels=1, patch=3, width=16, depth=1, heads=2, num_classes=10),
        DiTConfig(size=8, channels=5, patch=8, width=16, depth=1, heads=1, num_classes=10, learn_sigma=False),
    ],
)
def test_output_shape(config):
    out = randomised(DiT(config))(*inputs(config))
    channels = config.channels * (2 if config.learn_sigma else 1)
    assert out.shape == (3, channels, config.size, config.size)
    assert out.isfinite().all()


def test_output_is_zero_at_the_start():
    torch.manual_seed(0)
    assert torch.equal(DiT(CONFIG)(*inputs()), torch.zeros(3, 6, 8, 8))


def test_every_block_is_the_identity_at_the_start():
    torch.manual_seed(0)
    x, c = torch.randn(2, 16, 32), torch.randn(2, 32)
    for block in DiT(CONFIG).blocks:
        assert torch.equal(block(x, c), x)
        assert block.attn(x).abs().max() > 0  # its branches are not silent, its gates are
        assert block.mlp(x).abs().max() > 0


def test_initial_weights():
    torch.manual_seed(0)
    model = DiT(dataclasses.replace(CONFIG, width=64))
    zero = {"final.linear.weight", "final.modulation.weight"} | {f"blocks.{i}.modulation.weight" for i in range(2)}
    normal = {"time_embed.mlp.0.weight", "time_embed.mlp.2.weight", "label_embed.table.weight"}
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name in zero:
            assert not parameter.any(), name
        elif name in normal:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        else:  # Xavier: uniform within ±√(6 / (in + out))
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.9 * bound < parameter.abs().max().item() <= bound, name


def test_gradients_reach_every_parameter():
    model = randomised(DiT(CONFIG))
    model(*inputs()).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def normed(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.equation("16.7", of="ditbook.layers.adaln.AdaLNZeroBlock", against="the six rows of blocks of the weight")
@pytest.mark.equation("16.8", of="ditbook.layers.adaln.AdaLNZeroBlock", against="the attention branch written out")
@pytest.mark.equation("16.9", of="ditbook.layers.adaln.AdaLNZeroBlock", against="the MLP branch written out")
def test_block_written_out():
    block = randomised(AdaLNZeroBlock(32, 4))
    x, c = torch.randn(2, 9, 32), torch.randn(2, 32)
    parts = [
        (c @ block.modulation.weight[32 * i : 32 * i + 32].T + block.modulation.bias[32 * i : 32 * i + 32])[:, None]
        for i in range(6)
    ]
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts
    h = x + gate_1 * block.attn(normed(x) * (1 + scale_1) + shift_1)
    wanted = h + gate_2 * block.mlp(normed(h) * (1 + scale_2) + shift_2)
    torch.testing.assert_close(block(x, c), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.equation(
    "16.10", of="ditbook.layers.adaln.FinalLayer", against="norm, shift and scale, linear map written out"
)
def test_final_layer_written_out():
    layer = randomised(FinalLayer(32, 12))
    x, c = torch.randn(2, 9, 32), torch.randn(2, 32)
    both = c @ layer.modulation.weight.T + layer.modulation.bias
    shift, scale = both[:, None, :32], both[:, None, 32:]
    wanted = (normed(x) * (1 + scale) + shift) @ layer.linear.weight.T + layer.linear.bias
    torch.testing.assert_close(layer(x, c), wanted, rtol=1e-4, atol=1e-4)


def test_the_whole_model_is_its_parts():
    model = randomised(DiT(CONFIG))
    x, t, y = inputs()
    # a patch as row, column, channel; tokens in reading order
    tokens = F.unfold(x, 2, stride=2).view(3, 3, 4, 16).permute(0, 3, 2, 1).reshape(3, 16, 12)
    tokens = F.linear(tokens, model.patch_embed.weight, model.patch_embed.bias) + sincos_2d(32, 4).float()
    c = F.silu(model.time_embed(t) + model.label_embed.table.weight[y])
    for block in model.blocks:
        tokens = block(tokens, c)
    out = model.final(tokens, c).view(3, 16, 4, 6).permute(0, 3, 2, 1).reshape(3, 24, 16)
    torch.testing.assert_close(model(x, t, y), F.fold(out, 8, 2, stride=2), rtol=1e-4, atol=1e-4)


def test_time_class_and_image_all_matter():
    model = randomised(DiT(CONFIG))
    x, t, y = inputs()
    out = model(x, t, y)
    for other in (model(x + 0.1, t, y), model(x, t - 1 + 2 * (t == 0), y), model(x, t, (y + 1) % 11)):
        assert ((out - other).flatten(1).abs().amax(1) > 1e-3).all()


def test_samples_of_a_batch_do_not_mix():
    model = randomised(DiT(CONFIG))
    x, t, y = inputs()
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, t, y), alone, rtol=1e-4, atol=1e-5)


def test_training_mode_changes_nothing():
    model = randomised(DiT(CONFIG))
    assert torch.equal(model.train()(*inputs()), model.eval()(*inputs()))


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 1, 8, 8), (3, 3, 8, 10), (3, 3, 16, 16), (3, 8, 8)])
def test_wrong_channels_or_size(shape):
    with pytest.raises(ValueError, match=r"images of shape \(3, .*\); this model takes \(batch, 3, 8, 8\)"):
        DiT(CONFIG)(torch.zeros(shape), *inputs()[1:])


def test_wrong_types_and_numbers_of_inputs():
    model, (x, t, y) = DiT(CONFIG), inputs()
    with pytest.raises(ValueError, match=r"images of type torch.uint8; expected floating-point numbers in \[-1"):
        model(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), t, y)
    for wrong in (t[:2], t[:, None], t[0]):
        with pytest.raises(ValueError, match=r"timesteps of shape .*; this model takes one for each sample: \(3,\)"):
            model(x, wrong, y)
    with pytest.raises(ValueError, match=r"labels of shape \(1,\); this model takes one for each sample: \(3,\)"):
        model(x, t, y[:1])


@pytest.mark.parametrize("wrong", [-1, 11])
def test_class_out_of_range(wrong):
    x, t, _ = inputs()
    with pytest.raises(ValueError, match=rf"class {wrong} is out of range: labels are 0 to 9"):
        DiT(CONFIG)(x, t, torch.tensor([0, wrong, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 9}, "size 9 is not divisible by patch 2; take a multiple of 2"),
        ({"heads": 5}, "width 32 is not divisible by heads 5; take a multiple of 5"),
        ({"width": 30, "heads": 3}, "width 30 is not divisible by .* 4; take a multiple of 4"),
        ({"patch": 0}, "patch 0 must be at least 1"),
        ({"depth": -1}, "depth -1 must be at least 1"),
        ({"channels": 1.5}, "channels 1.5 of type float must be a whole number"),
        ({"num_classes": 0}, "num_classes 0 must be"),
        ({"label_dropout": 1.1}, "label_dropout 1.1 must lie in 0 to 1"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_registry_holds_the_papers_models():
    assert len(MODELS) == 12
    assert DiTConfig.from_name("DiT-XL/2") == DiTConfig()
    designs = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    for size, design in designs.items():
        for patch in (2, 4, 8):
            config = DiTConfig.from_name(f"DiT-{size}/{patch}")
            assert (config.depth, config.width, config.heads) == design
            assert config.tokens == (32 // patch) ** 2
    assert DiTConfig.from_name("DiT-S/4", size=64, num_classes=10).tokens == 256


@pytest.mark.parametrize("name", ["DiT-M/2", "S/2", "DiT-S", "DiT-S/", "DiT-S/x", "tiny-B/2", ""])
def test_no_such_model(name):
    with pytest.raises(ValueError, match=rf"no model '{name}'; a name is SIZE/PATCH, .* DiT-XL, tiny-S, "):
        DiTConfig.from_name(name)


def test_a_patch_that_does_not_fit_a_named_model():
    with pytest.raises(ValueError, match="size 32 is not divisible by patch 3"):
        DiTConfig.from_name("DiT-S/3")


def test_small_models_of_chapter_18():
    digits = {"size": 8, "channels": 1, "num_classes": 10, "learn_sigma": False}
    config = DiTConfig.from_name("tiny-M/2", **digits)
    assert config == DiTConfig(**digits, patch=2, width=64, depth=3, heads=4)
    parameters = [DiTConfig.from_name(f"{size}/2", **digits).complexity().trainable for size in SIZES]
    assert parameters[4:] == sorted(parameters[4:])


def test_position_table_is_a_buffer_and_no_weight():
    model = DiT(CONFIG)
    assert "pos_embed" not in model.state_dict()
    assert "pos_embed" in dict(model.named_buffers())
    assert not isinstance(model.pos_embed, nn.Parameter)
    torch.testing.assert_close(model.pos_embed, sincos_2d(32, 4).float())


def test_the_null_condition_is_one_class_more():
    y = torch.tensor([0, 9, 4])
    null = DiT(CONFIG).null_condition(y)
    assert null.keys() == {"y"}
    assert null["y"].tolist() == [10, 10, 10]
    assert null["y"].dtype == y.dtype


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match="no block 'film'; there are in-context, cross-attention, adaLN, adaLN-Zero"):
        dataclasses.replace(CONFIG, block="film")


@pytest.mark.equation("15.8", of="ditbook.models.dit.DiTConfig.tokens", against="the formula, three cases")
@pytest.mark.parametrize(("pixels", "factor", "patch", "tokens"), [(32, 4, 2, 16), (32, 1, 8, 16), (512, 8, 2, 1024)])
def test_a_latent_of_a_smaller_side_has_fewer_tokens(pixels, factor, patch, tokens):
    config = dataclasses.replace(CONFIG, size=pixels // factor, patch=patch)
    assert config.tokens == (pixels / (factor * patch)) ** 2 == tokens


@pytest.mark.equation(
    "15.9", of="ditbook.layers.adaln.FinalLayer", against="the part of the noise outside the last map's range"
)
def test_a_narrow_token_cannot_name_all_noise_of_its_patch():
    config = DiTConfig(size=8, channels=3, patch=4, width=16, depth=1, heads=2, num_classes=10, learn_sigma=False)
    model, generator = randomised(DiT(config)).double(), torch.Generator().manual_seed(0)
    eps = torch.randn(500, 3, 8, 8, generator=generator, dtype=torch.float64)
    t, y = (torch.randint(top, (500,), generator=generator) for top in (1000, 10))
    to_tokens = lambda x: x.view(-1, 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 48)  # noqa: E731
    with torch.no_grad():
        told = to_tokens(model(eps, t, y)) - model.final.linear.bias
        W = model.final.linear.weight
        outside = torch.eye(48, dtype=torch.float64) - W @ torch.linalg.pinv(W)  # what W cannot reach
        torch.testing.assert_close(told @ outside, torch.zeros_like(told))
        lost = (to_tokens(eps) @ outside).square().sum(dim=1).mean() / 48
    assert lost.item() == pytest.approx(1 - 16 / 48, rel=0.03)
    assert torch.linalg.matrix_rank(outside).item() == 48 - 16
