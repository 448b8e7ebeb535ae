import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.layers.embeddings import sincos_2d
from ditbook.metrics import complexity
from ditbook.models.dit import BLOCKS, MODELS, SIZES, AdaLNZeroBlock, DiT, DiTConfig, FinalLayer

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


@pytest.mark.equation("16.7", of="ditbook.models.dit.AdaLNZeroBlock", against="the six rows of blocks of the weight")
@pytest.mark.equation("16.8", of="ditbook.models.dit.AdaLNZeroBlock", against="the attention branch written out")
@pytest.mark.equation("16.9", of="ditbook.models.dit.AdaLNZeroBlock", against="the MLP branch written out")
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
    "16.10", of="ditbook.models.dit.FinalLayer", against="norm, shift and scale, linear map written out"
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
    with pytest.raises(
        ValueError, match=r"images of type torch.uint8; this model takes floating-point numbers in \[-1"
    ):
        model(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), t, y)
    for wrong in (t[:2], t[:, None], t[0]):
        with pytest.raises(ValueError, match=r"timesteps of shape .*; this model takes one for each image: \(3,\)"):
            model(x, wrong, y)
    with pytest.raises(ValueError, match=r"labels of shape \(1,\); this model takes one for each image: \(3,\)"):
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
        ({"patch": 0}, "patch 0 must be a whole number, at least 1"),
        ({"depth": -1}, "depth -1 must be a whole number, at least 1"),
        ({"channels": 1.5}, "channels 1.5 must be a whole number"),
        ({"num_classes": 0}, "num_classes 0 must be"),
        ({"label_dropout": 1.1}, "label_dropout 1.1 must be a fraction, 0 to 1"),
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


def with_block(block):
    return DiT(dataclasses.replace(CONFIG, block=block))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_makes_use_of_time_and_class(block):
    model, (x, t, y) = randomised(with_block(block)), inputs()
    out = model(x, t, y)
    assert out.shape == (3, 6, 8, 8)
    assert (model(x, t.flip(0), y) - out).abs().amax(dim=(1, 2, 3))[0] > 1e-3
    assert (model(x, t, y.flip(0)) - out).abs().amax(dim=(1, 2, 3))[0] > 1e-3
    out.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("block", BLOCKS)
def test_only_adaln_zero_starts_as_the_identity(block):
    torch.manual_seed(0)
    model, (x, t, y) = with_block(block), inputs()
    assert not model(x, t, y).any()  # the last map is zero in all of them
    vector = BLOCKS[block].condition == "vector"
    tokens, c = torch.randn(2, 16, 32), torch.randn(2, 32) if vector else torch.randn(2, 2, 32)
    assert torch.equal(model.blocks[0](tokens, c), tokens) == (block == "adaLN-Zero")


def test_the_tokens_in_context_are_read_and_dropped():
    model, (x, t, y) = randomised(with_block("in-context")), inputs()
    seen = []
    model.blocks[-1].register_forward_hook(lambda module, args, out: seen.append(out))
    model.final.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(x, t, y)
    last, kept = seen
    assert last.shape == (3, 18, 32)
    assert torch.equal(kept, last[:, :16])


def plain_twin(block):
    """torch.nn's encoder layer with the weights of an in-context block."""
    twin = nn.TransformerEncoderLayer(
        32, 4, 128, 0.0, lambda x: F.gelu(x, approximate="tanh"), 1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": block.attn.qkv, "self_attn.out_proj.": block.attn.proj, "linear1.": block.mlp.fc1,
        "linear2.": block.mlp.fc2, "norm1.": block.norms[0], "norm2.": block.norms[-1],
    }  # fmt: skip
    twin.load_state_dict({f"{name}{kind}": getattr(part, kind) for name, part in names.items()
                          for kind in ("weight", "bias")})  # fmt: skip
    return twin


@pytest.mark.equation("16.16", of="ditbook.models.dit.InContextBlock", against="torch.nn.TransformerEncoderLayer")
def test_the_in_context_block_is_an_encoder_layer():
    block = randomised(with_block("in-context")).blocks[0]
    x = torch.randn(2, 18, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x, x), plain_twin(block)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.equation("16.17", of="ditbook.models.dit.CrossAttentionBlock", against="torch.nn.MultiheadAttention")
def test_the_cross_attention_block_looks_at_the_condition():
    block = randomised(with_block("cross-attention")).blocks[0]
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(2, 16, 32, generator=generator), torch.randn(2, 2, 32, generator=generator)
    look = nn.MultiheadAttention(32, 4, batch_first=True)
    look.load_state_dict(
        {
            "in_proj_weight": torch.cat([block.cross.q.weight, block.cross.kv.weight]),
            "in_proj_bias": torch.cat([block.cross.q.bias, block.cross.kv.bias]),
            "out_proj.weight": block.cross.proj.weight,
            "out_proj.bias": block.cross.proj.bias,
        }
    )
    z = x + block.attn(block.norms[0](x))
    z = z + look(block.norms[1](z), c, c)[0]
    z = z + block.mlp(block.norms[2](z))
    torch.testing.assert_close(block(x, c), z, rtol=1e-4, atol=1e-4)


@pytest.mark.equation("16.18", of="ditbook.models.dit.AdaLNBlock", against="an adaLN-Zero block whose gates are one")
def test_adaln_is_adaln_zero_with_open_gates():
    block, zero = randomised(with_block("adaLN")).blocks[0], AdaLNZeroBlock(32, 4)
    state = block.state_dict()
    for kind, gate in (("weight", torch.zeros(32, 32)), ("bias", torch.ones(32))):
        shift_1, scale_1, shift_2, scale_2 = state[f"modulation.{kind}"].chunk(4)
        state[f"modulation.{kind}"] = torch.cat([shift_1, scale_1, gate, shift_2, scale_2, gate])
    zero.load_state_dict(state)
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(2, 16, 32, generator=generator), torch.randn(2, 32, generator=generator)
    torch.testing.assert_close(block(x, c), zero(x, c))


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
    "15.9", of="ditbook.models.dit.FinalLayer", against="the part of the noise outside the last map's range"
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


PAPER = {  # name: Gflops and millions of parameters as printed, exact parameters with the position table, its part
    "DiT-S/8": (0.36, 33, 33_148_160, 6_144),
    "DiT-S/4": (1.41, 33, 32_945_024, 24_576),
    "DiT-S/2": (6.06, 33, 32_963_360, 98_304),
    "DiT-B/8": (1.42, 131, 130_881_536, 12_288),
    "DiT-B/4": (5.56, 130, 130_475_648, 49_152),
    "DiT-B/2": (23.01, 130, 130_512_416, 196_608),
    "DiT-L/8": (5.01, 459, 458_594_816, 16_384),
    "DiT-L/4": (19.70, 458, 458_053_760, 65_536),
    "DiT-L/2": (80.71, 458, 458_102_816, 262_144),
    "DiT-XL/8": (7.39, 676, 675_683_072, 18_432),
    "DiT-XL/4": (29.05, 675, 675_074_432, 73_728),
    "DiT-XL/2": (118.64, 675, 675_129_632, 294_912),
}
SMALL = [
    DiTConfig(size=8, channels=1, patch=2, width=96, depth=4, heads=4, num_classes=10, learn_sigma=False),
    DiTConfig(size=12, channels=3, patch=3, width=24, depth=1, heads=2, num_classes=2),
    DiTConfig(size=16, channels=4, patch=1, width=32, depth=2, heads=8, num_classes=5, learn_sigma=False),
    *(DiTConfig(size=8, patch=2, width=32, depth=3, heads=4, num_classes=5, block=block) for block in list(BLOCKS)[:3]),
]


def test_the_table_has_all_models():
    assert set(PAPER) == set(MODELS)
    assert len(MODELS) == 12


@pytest.mark.parametrize("name", PAPER)
def test_row_of_the_papers_table(name):
    gflops, millions, total, fixed = PAPER[name]
    counted = DiTConfig.from_name(name).complexity()
    assert counted.gflops == pytest.approx(gflops, abs=0.011)
    assert counted.fixed == fixed
    assert counted.total == total
    assert round(counted.trainable / 1e6) == millions


@pytest.mark.parametrize(
    ("block", "gflops", "trainable"),
    [
        ("in-context", 119.37, 449_162_528),
        ("cross-attention", 137.62, 597_991_712),
        ("adaLN", 118.56, 600_452_384),
        ("adaLN-Zero", 118.64, 674_834_720),
    ],
)
def test_the_four_blocks_of_the_paper_at_xl(block, gflops, trainable):
    counted = DiTConfig.from_name("DiT-XL/2", block=block).complexity()
    assert counted.gflops == pytest.approx(gflops, abs=0.011)
    assert counted.trainable == trainable


def test_xl_at_512_pixels():
    counted = DiTConfig.from_name("DiT-XL/2", size=64).complexity()
    assert counted.gflops == pytest.approx(524.60, abs=0.011)
    assert counted.macs / 1e9 == pytest.approx(524.538, abs=0.001)
    assert (counted.total, counted.fixed, counted.trainable) == (676_014_368, 1_179_648, 674_834_720)


def test_matrix_products_alone():
    assert DiTConfig.from_name("DiT-XL/2").complexity().macs / 1e9 == pytest.approx(118.6214, abs=5e-5)
    assert DiTConfig.from_name("DiT-S/8").complexity().macs / 1e9 == pytest.approx(0.3580, abs=5e-5)


@pytest.mark.equation(
    "16.14", of="ditbook.models.dit.DiTConfig.complexity", against="PyTorch's counter on a running model"
)
@pytest.mark.equation("16.15", of="ditbook.models.dit.DiTConfig.complexity", against="the parameters of a model")
@pytest.mark.parametrize(
    "config", [*SMALL, *map(DiTConfig.from_name, PAPER)], ids=[*map(str, range(len(SMALL))), *PAPER]
)
def test_formula_and_measurement_are_equal(config):
    with torch.device("meta"):
        x, index = torch.empty(1, config.channels, config.size, config.size), torch.zeros(1, dtype=torch.long)
        assert config.complexity() == complexity.measure(DiT(config), x, index, index)


@pytest.mark.parametrize("config", SMALL)
def test_norms_are_what_the_layer_norms_see(config, monkeypatch):
    seen = []
    original = nn.functional.layer_norm

    def counting(x, *args, **kwargs):
        seen.append(x.numel())
        return original(x, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "layer_norm", counting)
    x = torch.zeros(1, config.channels, config.size, config.size)
    DiT(config)(x, torch.tensor([0]), torch.tensor([0]))
    assert config.complexity().norms == sum(seen)


def test_more_classes_cost_parameters_and_no_products():
    few, many = (dataclasses.replace(SMALL[0], num_classes=n).complexity() for n in (10, 11))
    assert (many.trainable - few.trainable, many.macs) == (96, few.macs)
