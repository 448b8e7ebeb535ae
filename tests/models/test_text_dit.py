import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.diffusion import flow, samplers
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.diffusion.schedules import linear
from ditbook.layers.attention import scaled_dot_product
from ditbook.models.text_dit import BLOCKS, JointBlock, TextDiT, TextDiTConfig

SIZES = {"size": 8, "channels": 3, "patch": 2, "width": 24, "depth": 2, "heads": 2, "vocabulary": 11, "context": 7}
SIZES |= {"text_width": 16, "text_depth": 1, "num_classes": 4}
TOKENS = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 2, 0, 0], [1, 3, 4, 8, 2]])
blocks = pytest.mark.parametrize("block", BLOCKS)


def build(block, std=0.2, **changes):
    torch.manual_seed(0)
    model = TextDiT(TextDiTConfig(**{**SIZES, "block": block, **changes}))
    if std:
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=std)
    return model.eval()


def inputs():
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return {"x": x, "t": torch.tensor([0.0, 500.0, 999.0]), "tokens": TOKENS, "y": torch.tensor([0, 4, 2])}


@blocks
def test_a_fresh_network_passes_its_patches_through_every_block_and_gives_zero(block):
    model, given = build(block, std=0), inputs()
    assert torch.equal(model(**given), torch.zeros(3, 3, 8, 8))
    x = model.patch_embed(given["x"])
    text, mean = model.text_encoder(TOKENS)
    c = model.condition(given["t"], mean, given["y"])
    signal = c if model.modulation is None else model.modulation(c).view(3, 6, 24)
    for layer in model.blocks:
        after, text_after = layer(x, text, signal, (TOKENS != 0)[:, None, None])
        assert torch.equal(after, x)
        assert torch.equal(text_after, text)


@pytest.mark.equation("19.1", of="ditbook.models.text_dit.TextEncoder", against="a sum over the words of each text")
def test_a_text_is_its_words_and_a_map_of_their_mean():
    encoder = build("joint").text_encoder
    words, mean = encoder(TOKENS)
    normed = []
    encoder.norm.register_forward_hook(lambda layer, given, out: normed.append(out))
    encoder(TOKENS)
    for row, length in enumerate((4, 3, 5)):
        own = sum(normed[0][row, k] for k in range(length)) / length
        torch.testing.assert_close(mean[row], encoder.project_mean(own))
        torch.testing.assert_close(words[row], encoder.project(normed[0][row]))


@pytest.mark.equation("19.2", of="ditbook.models.text_dit.TextDiT.condition", against="the three parts, added by hand")
def test_the_condition_is_a_sum():
    model, given = build("joint"), inputs()
    mean = model.text_encoder(TOKENS)[1]
    parts = model.time_embed(given["t"]), mean, model.label_embed.table.weight[given["y"]]
    torch.testing.assert_close(model.condition(given["t"], mean, given["y"]), F.silu(sum(parts)))


@pytest.mark.equation("19.10", of="ditbook.models.text_dit.TextDiT", against="PyTorch's count of the parameters")
@pytest.mark.parametrize("width", [24, 160])
def test_parameters_of_the_blocks(width):
    def count(block, last=False):
        return sum(p.numel() for p in BLOCKS[block](width, 4, last=last).parameters())

    assert count("cross-attention") == count("cross-attention", last=True) == 16 * width**2 + 19 * width
    assert count("joint") == 36 * width**2 + 30 * width
    assert count("joint", last=True) == 23 * width**2 + 20 * width


@blocks
def test_padding_changes_nothing(block):
    model, given = build(block), inputs()
    wanted = model(**given)
    torch.testing.assert_close(model(**given | {"tokens": F.pad(TOKENS, (0, 2))}), wanted)
    alone = model(given["x"][1:2], given["t"][1:2], TOKENS[1:2, :3], given["y"][1:2])
    torch.testing.assert_close(alone, wanted[1:2])


@blocks
def test_each_image_depends_on_every_word_of_its_text_on_their_order_and_on_its_class(block):
    model, given = build(block), inputs()
    wanted = model(**given)
    for row, column, token in ((0, 1, 9), (0, 2, 9), (1, 1, 9), (2, 3, 9)):
        changed = TOKENS.clone()
        changed[row, column] = token
        same = [torch.allclose(a, b) for a, b in zip(model(**given | {"tokens": changed}), wanted, strict=True)]
        assert same == [k != row for k in range(3)]
    swapped = TOKENS[:, [0, 2, 1, 3, 4]]
    assert (model(**given | {"tokens": swapped})[0] - wanted[0]).abs().max() > 1e-2
    other = model(**given | {"y": torch.tensor([1, 4, 2])})
    assert [torch.allclose(a, b) for a, b in zip(other, wanted, strict=True)] == [False, True, True]


@blocks
def test_the_text_reaches_the_image_through_the_blocks_too(block, monkeypatch):
    model, given = build(block), inputs()
    encode = model.text_encoder.forward
    monkeypatch.setattr(model.text_encoder, "forward", lambda tokens: (encode(tokens)[0], torch.zeros(3, 24)))
    swapped = TOKENS[:, [0, 2, 1, 3, 4]]
    assert (model(**given | {"tokens": swapped})[0] - model(**given)[0]).abs().max() > 1e-2


@blocks
def test_gradients_reach_every_parameter(block):
    model = build(block)
    model(**inputs()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_joint_attention_is_one_attention_over_both_streams():
    torch.manual_seed(0)
    block, x, text, c = JointBlock(8, 2, last=False), torch.randn(3, 6, 8), torch.randn(3, 5, 8), torch.randn(3, 8)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    found = block(x, text, c, (TOKENS != 0)[:, None, None])

    def parts(stream, values):
        return stream.modulation(c)[:, None].chunk(6, dim=-1), F.layer_norm(values, (8,), eps=1e-6)

    streams, qkv = ((block.image, x), (block.text, text)), []
    for stream, values in streams:
        (shift, scale, *_), normed = parts(stream, values)
        qkv.append((normed * (1 + scale) + shift) @ stream.attn.qkv.weight.T + stream.attn.qkv.bias)
    q, k, v = torch.cat(qkv, dim=1).view(3, 11, 3, 2, 4).permute(2, 0, 3, 1, 4)
    real = torch.cat([torch.ones(3, 6, dtype=torch.bool), TOKENS != 0], dim=1)
    attended = scaled_dot_product(q, k, v, real[:, None, None]).transpose(1, 2).reshape(3, 11, 8)
    for (stream, values), out, part in zip(streams, found, attended.split([6, 5], dim=1), strict=True):
        (_, _, gate, shift, scale, gate_mlp), _ = parts(stream, values)
        h = values + gate * stream.attn.proj(part)
        wanted = h + gate_mlp * stream.mlp(F.layer_norm(h, (8,), eps=1e-6) * (1 + scale) + shift)
        torch.testing.assert_close(out, wanted)


def test_the_last_joint_block_leaves_the_text():
    model = build("joint")
    assert [layer.text.mlp is None for layer in model.blocks] == [False, True]
    text = torch.randn(3, 5, 24)
    x, c = torch.randn(3, 16, 24), torch.randn(3, 24)
    mask = (TOKENS != 0)[:, None, None]
    assert not torch.equal(model.blocks[0](x, text, c, mask)[1], text)
    assert torch.equal(model.blocks[1](x, text, c, mask)[1], text)


def test_the_null_condition_is_the_empty_text_and_the_null_class():
    model, y = build("joint"), torch.tensor([1, 2, 3])
    null = model.null_condition(TOKENS, y)
    assert null["tokens"].tolist() == [[1, 2, 0, 0, 0]] * 3
    assert null["y"].tolist() == [4, 4, 4]
    assert build("joint", num_classes=0).null_condition(TOKENS).keys() == {"tokens"}


@blocks
@pytest.mark.parametrize("step", [samplers.ddim, flow.euler, flow.heun])
def test_samplers_guide_it_as_any_model(block, step):
    model, given = build(block, std=0.05), inputs()
    process = flow.Flow(flow.uniform_times(4))
    condition = {"tokens": given["tokens"], "y": given["y"]}
    found = samplers.sample(ClassifierFreeGuidance(model, 2.0), given["x"], process, step=step, **condition)

    def by_hand(x, t, **condition):
        with_text, without = model(x, t, **condition), model(x, t, **model.null_condition(**condition))
        return without + 2 * (with_text - without)

    wanted = samplers.sample(by_hand, given["x"], process, step=step, **condition)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, samplers.sample(model, given["x"], process, step=step, **condition))


def test_it_denoises_by_the_noise_too():
    model, given = build("cross-attention", std=0.05), inputs()
    process = GaussianDiffusion(linear()).respace(3)
    condition = {"tokens": given["tokens"], "y": given["y"]}
    generator = torch.Generator().manual_seed(0)
    found = samplers.sample(
        ClassifierFreeGuidance(model, 2.0), given["x"], process, step=samplers.ddpm, generator=generator, **condition
    )
    assert found.isfinite().all()


def test_wrong_input_is_refused():
    model, given = build("joint"), inputs()
    for changes, message in (
        ({"tokens": TOKENS[:2]}, r"texts of shape \(2, 5\); this model takes \(3, 7 or less\)"),
        ({"tokens": F.pad(TOKENS, (0, 3))}, r"texts of shape \(3, 8\); this model takes \(3, 7 or less\)"),
        ({"y": None}, "this model has classes: call it with y"),
        ({"y": torch.tensor([0, 5, 1])}, "class 5 is out of range"),
        ({"t": torch.zeros(2)}, "timesteps of shape"),
        ({"x": torch.zeros(3, 2, 8, 8)}, r"images of shape \(3, 2, 8, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**given | changes)
    with pytest.raises(ValueError, match="this model has no classes: call it without y"):
        build("joint", num_classes=0)(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "single"}, "no block 'single'; there are cross-attention, joint"),
        ({"size": 9}, "size 9 is not divisible by patch 2"),
        ({"text_width": 15}, "text_width 15 is not divisible by heads 2"),
        ({"num_classes": -1}, "num_classes -1 must be at least 0"),
        ({"context": 0}, "context 0 must be at least 1"),
        ({"dropout": 1.5}, "dropout 1.5 must lie in 0 to 1"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        TextDiTConfig(**{**SIZES, **change})
