import pytest
import torch
from torch import nn

from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig

CONFIG = UnCLIPDecoderConfig(size=8, channels=3, patch=2, width=32, depth=2, heads=4, joint=12, extra=3)


def inputs(batch=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, 8, 8, generator=generator)
    return x, torch.tensor([0, 500, 999]), torch.randn(batch, 12, generator=generator)


def test_the_output_is_zero_at_the_start():
    torch.manual_seed(0)
    assert torch.equal(UnCLIPDecoder(CONFIG)(*inputs()), torch.zeros(3, 3, 8, 8))


def test_gradients_reach_every_parameter_but_the_null_vector():
    model = UnCLIPDecoder(CONFIG)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model(*inputs()).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == {"null"}
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.grad is not None)


def test_the_null_vector_is_learned_where_vectors_are_dropped():
    model, (x, t, embedding) = UnCLIPDecoder(CONFIG), inputs()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    null = model.null_condition(embedding)["embedding"]
    assert torch.equal(null, model.null.expand(3, 12))
    model(x, t, torch.where(torch.tensor([[True], [False], [False]]), null, embedding)).square().sum().backward()
    assert model.null.grad.abs().sum() > 0


def test_each_image_depends_on_its_own_vector():
    model, (x, t, embedding) = UnCLIPDecoder(CONFIG), inputs()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    changed = embedding.clone()
    changed[1] = -changed[1]
    same = [torch.allclose(a, b) for a, b in zip(model(x, t, embedding), model(x, t, changed), strict=True)]
    assert same == [True, False, True]


def test_wrong_input_is_refused():
    model, (x, t, embedding) = UnCLIPDecoder(CONFIG), inputs()
    match = r"vectors of shape \(3, 11\); this model takes one row for each sample: \(3, 12\)"
    with pytest.raises(ValueError, match=match):
        model(x, t, embedding[:, :11])
    with pytest.raises(ValueError, match=r"images of shape \(3, 2, 8, 8\)"):
        model(x[:, :2], t, embedding)
    with pytest.raises(ValueError, match="timesteps of shape"):
        model(x, t[:2], embedding)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 9}, "size 9 is not divisible by patch 2"),
        ({"extra": 0}, "extra 0 must be at least 1"),
        ({"dropout": 1.5}, "dropout 1.5 must lie in 0 to 1"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        UnCLIPDecoderConfig(**{**vars(CONFIG), **change})
