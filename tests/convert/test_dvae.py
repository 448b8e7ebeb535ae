import pytest
import torch
import torch.nn.functional as F

from ditbook.convert.dvae import load_openai, to_openai
from ditbook.models.dvae import DVAE, DVAEConfig

CONFIG = DVAEConfig(vocabulary=13, width=8, start=6, groups=3, blocks=2)


def make(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    model = DVAE(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def published(state, x, resize, kernels):
    """What the published modules compute, written out over the names of their parameters."""

    def conv(x, name, kernel):
        assert state[f"{name}.w"].shape[-2:] == (kernel, kernel)
        return F.conv2d(x, state[f"{name}.w"], state[f"{name}.b"], padding=kernel // 2)

    x = conv(x, "blocks.input", 7 if kernels[0] == 3 else 1)
    for group in (1, 2, 3):
        for block in (1, 2):
            name, h = f"blocks.group_{group}.block_{block}", x
            for number, kernel in enumerate(kernels, start=1):
                h = conv(F.relu(h), f"{name}.res_path.conv_{number}", kernel)
            same = x if f"{name}.id_path.w" not in state else conv(x, f"{name}.id_path", 1)
            x = same + h / (3 * 2) ** 2
        x = resize(x) if group < 3 else x
    return conv(F.relu(x), "blocks.output.conv", 1)


def test_the_published_layout_computes_the_same():
    model, x = make(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    encoder, decoder = to_openai(model)
    logits = published(encoder, 0.8 * x + 0.1, lambda x: F.max_pool2d(x, 2), (3, 3, 3, 1))
    torch.testing.assert_close(model.encode(2 * x - 1), logits)
    weights = logits.softmax(dim=1)
    maps = published(decoder, weights, lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3), (1, 3, 3, 3))
    torch.testing.assert_close(torch.cat(model.decode(weights), dim=1), maps)


def test_the_layout_loads_into_another_model():
    model, other = make(), make(seed=5)
    load_openai(other, *to_openai(model))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, check_dtype=False, rtol=1e-6, atol=1e-6)


def test_the_names_of_the_public_model():
    with torch.device("meta"):
        encoder, decoder = to_openai(DVAE(DVAEConfig()))
    assert encoder["blocks.input.w"].shape == (256, 3, 7, 7)
    assert encoder["blocks.group_4.block_1.id_path.w"].shape == (2048, 1024, 1, 1)
    assert encoder["blocks.output.conv.b"].shape == (8192,)
    assert decoder["blocks.input.w"].shape == (128, 8192, 1, 1)
    assert decoder["blocks.group_1.block_1.res_path.conv_1.w"].shape == (512, 128, 1, 1)
    assert decoder["blocks.output.conv.w"].shape == (6, 256, 1, 1)


def test_a_wrong_key_is_named_and_a_codebook_refused():
    model = make()
    encoder, decoder = to_openai(model)
    del decoder["blocks.input.b"]
    with pytest.raises(ValueError, match=r"OpenAI layout: key 'blocks\.input\.b' is missing"):
        load_openai(model, encoder, decoder)
    with pytest.raises(ValueError, match="the published layout has none"):
        to_openai(make(config=DVAEConfig(vocabulary=13, width=8, start=6, groups=3, code_width=4)))
