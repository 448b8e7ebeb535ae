import pytest
import torch

from ditbook.diffusion.guidance import ClassifierFreeGuidance, drop_condition

NULL = 10
X = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
T = torch.tensor([5, 6, 7])
Y = torch.tensor([1, 2, 3])


def model(x, t, y):
    """Depends on everything, on x not linearly, and has a variance head."""
    h = torch.sin(x * (1 + y.view(-1, 1, 1, 1)) + t.view(-1, 1, 1, 1))
    return torch.cat([h, h.cos()], dim=1)


def guided(scale, channels=None):
    return ClassifierFreeGuidance(model, scale, {"y": torch.tensor([NULL])}, channels)(X, T, y=Y)


def test_scale_one_is_the_conditional_model():
    torch.testing.assert_close(guided(1.0), model(X, T, Y))


def test_scale_zero_is_the_unconditional_model_where_guided():
    torch.testing.assert_close(guided(0.0)[:, :4], model(X, T, torch.full_like(Y, NULL))[:, :4])


@pytest.mark.equation(
    "16.13", of="ditbook.diffusion.guidance.ClassifierFreeGuidance", against="two calls of the model, combined by hand"
)
@pytest.mark.parametrize("scale", [-0.5, 1.5, 4.0])
def test_two_calls_combined(scale):
    with_condition, without = model(X, T, Y), model(X, T, torch.full_like(Y, NULL))
    wanted = (1 - scale) * without + scale * with_condition
    torch.testing.assert_close(guided(scale)[:, :4], wanted[:, :4])
    torch.testing.assert_close(guided(scale)[:, 4:], with_condition[:, 4:])


def test_first_three_channels():
    out = guided(4.0, channels=3)
    torch.testing.assert_close(out[:, :3], guided(4.0)[:, :3])
    torch.testing.assert_close(out[:, 3:], model(X, T, Y)[:, 3:])
    assert not torch.allclose(out[:, 3], guided(4.0)[:, 3])


def test_one_call_on_a_double_batch():
    sizes = []

    def counting(x, t, y):
        sizes.append(len(x))
        return model(x, t, y)

    ClassifierFreeGuidance(counting, 2.0, {"y": torch.tensor([NULL])})(X, T, y=Y)
    assert sizes == [6]


def test_conditions_without_a_null_value():
    with pytest.raises(ValueError, match=r"conditions \['z'\], but null values are given for \['y'\]"):
        ClassifierFreeGuidance(model, 2.0, {"y": torch.tensor([NULL])})(X, T, z=Y)


def test_a_model_knows_its_own_null_condition():
    class Known(torch.nn.Module):
        def null_condition(self, y):
            return {"y": torch.full_like(y, NULL)}

        def forward(self, x, t, y):
            return model(x, t, y)

    torch.testing.assert_close(ClassifierFreeGuidance(Known(), 3.0)(X, T, y=Y), guided(3.0))
    with pytest.raises(ValueError, match="function has no null_condition"):
        ClassifierFreeGuidance(model, 3.0)(X, T, y=Y)


def test_conditions_may_be_embeddings_and_masks_and_the_null_a_negative_prompt():
    text, mask = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1)), torch.ones(3, 5, dtype=torch.bool)

    def reader(x, t, text, mask):
        return x + (text * mask[..., None]).sum((1, 2)).view(-1, 1, 1, 1)

    negative = {"text": torch.full((1, 5, 2), 0.5), "mask": torch.tensor([[True, True, False, False, False]])}
    found = ClassifierFreeGuidance(reader, 2.0, negative)(X, T, text=text, mask=mask)
    torch.testing.assert_close(found, X + (2 * text.sum((1, 2)) - 2.0).view(-1, 1, 1, 1))


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_a_fraction_of_the_samples_loses_the_whole_condition(p):
    y, text = torch.arange(20_000), torch.ones(20_000, 3, 2)
    null = {"y": torch.full_like(y, -1), "text": torch.zeros(1, 3, 2)}
    dropped = drop_condition({"y": y, "text": text}, null, p, torch.Generator().manual_seed(0))
    lost = dropped["y"] == -1
    assert lost.double().mean().item() == pytest.approx(p, abs=0.01)
    assert torch.equal(dropped["y"], torch.where(lost, -1, y))
    assert torch.equal(dropped["text"], text * ~lost[:, None, None])


def test_nothing_to_drop_and_other_names():
    assert drop_condition({}, {}, 0.5, torch.Generator()) == {}
    with pytest.raises(ValueError, match=r"conditions \['y'\], but null values are given for \['z'\]"):
        drop_condition({"y": Y}, {"z": Y}, 0.5, torch.Generator())
