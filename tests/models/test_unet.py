import pytest
import torch

from ditbook.models.unet import UNet, UNetConfig, Upsampler, UpsamplerConfig


def randomised(config):
    torch.manual_seed(0)
    model = UNet(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(size=16, channels=3, width=16, multipliers=(1, 2, 2), blocks=2),
        UNetConfig(size=5, width=8, multipliers=(1,), heads=2),
        UNetConfig(size=12, channels=3, patch=3, width=16),
    ],
)
def test_output_has_the_shape_of_the_input_and_gradients_reach_all(config):
    model = randomised(config)
    x = torch.randn(2, config.channels, config.size, config.size)
    out = model(x, torch.tensor([0, 999]))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_output_is_zero_at_the_start():
    out = UNet(UNetConfig())(torch.randn(2, 1, 8, 8), torch.tensor([0, 999]))
    assert torch.equal(out, torch.zeros(2, 1, 8, 8))


def test_time_matters():
    model, x = randomised(UNetConfig()), torch.randn(1, 1, 8, 8)
    assert not torch.allclose(model(x, torch.tensor([3])), model(x, torch.tensor([700])), atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 9, 8), (2, 8, 8)])
def test_wrong_channels_or_size(shape):
    with pytest.raises(ValueError, match=r"images of shape \(2, .*\); this model takes \(batch, 1, 8, 8\)"):
        UNet(UNetConfig())(torch.zeros(shape), torch.tensor([0, 1]))


def test_wrong_types_and_timesteps():
    model, x = UNet(UNetConfig()), torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"images of type torch.uint8"):
        model(x.to(torch.uint8), torch.tensor([0, 1]))
    for wrong in (torch.tensor([0]), torch.tensor([[0], [1]]), torch.tensor(0)):
        with pytest.raises(ValueError, match=r"timesteps of shape .*; this model takes one for each sample: \(2,\)"):
            model(x, wrong)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 6, "multipliers": (1, 2, 2)}, "size 6 is not divisible by the halvings of the levels: 4"),
        ({"width": 20}, "width 20 is not divisible by the groups of GroupNorm: 8; take a multiple of 8"),
        ({"size": 9, "patch": 2}, "size 9 is not divisible by patch 2"),
        ({"size": 8, "patch": 8}, "size 8 is not divisible by the halvings of the levels: 16"),
        ({"patch": 0}, "patch 0 must be at least 1"),
        ({"heads": 3}, "width of the coarsest level 64 is not divisible by heads 3"),
        ({"multipliers": ()}, r"multipliers \(\) must hold a number for each level"),
        ({"multipliers": (1, 0)}, r"multipliers \(1, 0\) must hold .* of at least 1 each"),
        ({"blocks": 0}, "blocks 0 must be at least 1"),
    ],
)
def test_configs_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**fields)


def test_a_list_of_multipliers_is_taken_for_a_tuple():
    assert UNetConfig(multipliers=[1, 2]) == UNetConfig()


def test_a_patch_becomes_the_channels_of_one_position():
    """The same network on images whose squares of pixels were made channels beforehand."""
    model = randomised(UNetConfig(size=16, channels=3, patch=2, width=16))
    flat = UNet(UNetConfig(size=8, channels=12, width=16))
    flat.load_state_dict(model.state_dict())
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([4, 800])
    squares = x.view(2, 3, 8, 2, 8, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 8, 8)
    found = model(x, t).view(2, 3, 8, 2, 8, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 8, 8)
    torch.testing.assert_close(found, flat(squares, t))


def upsampler():
    torch.manual_seed(0)
    model = Upsampler(UpsamplerConfig(size=8, channels=3, low=4, width=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_an_upsampler_heeds_the_small_image_and_its_level():
    model, x, t = upsampler(), torch.randn(2, 3, 8, 8), torch.tensor([10, 700])
    low, level = torch.randn(2, 3, 4, 4), torch.tensor([0, 300])
    out = model(x, t, low=low, level=level)
    assert out.shape == x.shape
    for other in (model(x, t, low=-low, level=level), model(x, t, low=low, level=level + 100)):
        assert (out - other).abs().max() > 0.05
    out.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_an_upsampler_refuses_what_does_not_fit():
    model, x, t = upsampler(), torch.zeros(2, 3, 8, 8), torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"this model takes \(batch, 3, 4, 4\)"):
        model(x, t, low=x, level=t)
    with pytest.raises(ValueError, match="levels of shape"):
        model(x, t, low=torch.zeros(2, 3, 4, 4), level=t[:1])
    with pytest.raises(ValueError, match="size 8 is not divisible by low 3"):
        UpsamplerConfig(size=8, low=3)
