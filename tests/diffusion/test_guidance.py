import pytest
import torch

from ditbook.diffusion.guidance import ClassifierFreeGuidance

NULL = 10
X = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
T = torch.tensor([5, 6, 7])
Y = torch.tensor([1, 2, 3])


def model(x, t, y):
    """Depends on everything, on x not linearly, and has a variance head."""
    h = torch.sin(x * (1 + y.view(-1, 1, 1, 1)) + t.view(-1, 1, 1, 1))
    return torch.cat([h, h.cos()], dim=1)


def guided(scale, channels=None):
    return ClassifierFreeGuidance(model, scale, {"y": NULL}, channels)(X, T, y=Y)


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

    ClassifierFreeGuidance(counting, 2.0, {"y": NULL})(X, T, y=Y)
    assert sizes == [6]


def test_conditions_without_a_null_value():
    with pytest.raises(ValueError, match=r"conditions \['z'\], but null values are given for \['y'\]"):
        ClassifierFreeGuidance(model, 2.0, {"y": NULL})(X, T, z=Y)
