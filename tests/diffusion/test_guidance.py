import pytest
import torch

from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import (
    Autoguidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    drop_condition,
    interval,
)

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


def test_a_scale_for_each_timestep():
    found = ClassifierFreeGuidance(model, lambda t: t - 5.0, {"y": torch.tensor([NULL])})(X, T, y=Y)
    for i, scale in enumerate((0.0, 1.0, 2.0)):
        torch.testing.assert_close(found[i], guided(scale)[i])


def test_an_interval_of_timesteps():
    scale = interval(3.0, 5, 6)
    assert scale(torch.tensor([4, 5, 6, 7])).tolist() == [1, 1, 3, 1]
    assert scale(torch.tensor([5.0, 5.1, 6.1])).tolist() == [1, 3, 1]
    found = ClassifierFreeGuidance(model, scale, {"y": torch.tensor([NULL])})(X, T, y=Y)
    torch.testing.assert_close(found[[0, 2]], model(X, T, Y)[[0, 2]])
    torch.testing.assert_close(found[1], guided(3.0)[1])


def test_noise_levels_of_an_interval():
    """The release for ImageNet-512 guides from σ = 1.61 down to 0.28."""
    diffusion = GaussianDiffusion(schedules.linear(1000))
    low, high = diffusion.timesteps_of(torch.tensor([0.28, 1.61])).tolist()
    guided_at = interval(2.0, low, high)(torch.arange(1000)) == 2
    wanted = (diffusion.sigmas > 0.28) & (diffusion.sigmas <= 1.61)
    assert torch.equal(guided_at, wanted)
    assert 0 < wanted.sum() < 1000


@pytest.mark.equation(
    "12.14", of="ditbook.diffusion.guidance.ClassifierFreeGuidance", against="each sample's deviations, by hand"
)
@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_rescaling_restores_the_deviation_of_the_conditional_prediction(phi):
    plain = guided(6.0)[:, :4]
    found = ClassifierFreeGuidance(model, 6.0, {"y": torch.tensor([NULL])}, rescale=phi)(X, T, y=Y)
    conditional = model(X, T, Y)
    for i in range(3):
        ratio = conditional[i, :4].std() / plain[i].std()
        torch.testing.assert_close(found[i, :4], (phi * ratio + 1 - phi) * plain[i])
    torch.testing.assert_close(found[:, 4:], conditional[:, 4:])
    if phi == 1:
        torch.testing.assert_close(found[:, :4].std((1, 2, 3)), conditional[:, :4].std((1, 2, 3)))


def test_rescaling_of_a_constant_prediction_is_finite():
    found = ClassifierFreeGuidance(lambda x, t, y: 0 * x, 6.0, {"y": torch.tensor([NULL])}, rescale=0.7)(X, T, y=Y)
    assert torch.equal(found, torch.zeros_like(X))


@pytest.mark.parametrize("rescale", [-0.1, 1.1])
def test_an_impossible_rescaling(rescale):
    with pytest.raises(ValueError, match="rescale must lie in 0 to 1"):
        ClassifierFreeGuidance(model, 2.0, rescale=rescale)
    with pytest.raises(ValueError, match="rescale must lie in 0 to 1"):
        Autoguidance(model, model, 2.0, rescale=rescale)


def worse(x, t, y):
    """A guide without a variance head."""
    return 0.8 * model(x, t, y)[:, :4] + 0.1


@pytest.mark.equation(
    "12.13", of="ditbook.diffusion.guidance.Autoguidance", against="two calls of two models, combined by hand"
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.1])
def test_autoguidance_moves_away_from_the_worse_model(scale):
    found = Autoguidance(model, worse, scale)(X, T, y=Y)
    good, bad = model(X, T, Y), worse(X, T, Y)
    torch.testing.assert_close(found[:, :4], scale * good[:, :4] + (1 - scale) * bad)
    torch.testing.assert_close(found[:, 4:], good[:, 4:])


def test_autoguidance_in_an_interval_on_some_channels_and_rescaled():
    found = Autoguidance(model, worse, interval(3.0, 5, 6), channels=2)(X, T, y=Y)
    whole = Autoguidance(model, worse, 3.0)(X, T, y=Y)
    torch.testing.assert_close(found[[0, 2]], model(X, T, Y)[[0, 2]])
    torch.testing.assert_close(found[1, :2], whole[1, :2])
    torch.testing.assert_close(found[1, 2:], model(X, T, Y)[1, 2:])
    rescaled = Autoguidance(model, worse, 3.0, rescale=1.0)(X, T, y=Y)
    torch.testing.assert_close(rescaled[:, :4].std((1, 2, 3)), model(X, T, Y)[:, :4].std((1, 2, 3)))


@pytest.mark.equation(
    "12.12",
    of="ditbook.diffusion.guidance.ClassifierGuidance",
    against="Bayes' rule: the exact conditional prediction of a mixture",
)
@pytest.mark.parametrize("predicts", ["eps", "x_start", "v"])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_classifier_turns_the_unconditional_model_into_the_conditional_one(predicts, learn_sigma, mixture):
    """Bayes' rule: with the exact classifier of a mixture and scale 1 the exact prediction for the class comes out."""
    diffusion = GaussianDiffusion(schedules.linear(1000), predicts=predicts, learn_sigma=learn_sigma)
    x, y = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)[:, None], torch.arange(8) % 2

    def scales(x, t):
        sigma = diffusion.sigmas_of(t, x)[..., None]
        return 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()

    def output(x_start, x, t):
        value = getattr(diffusion.convert(x_start, x, t, "x_start"), predicts)
        return torch.cat([value, x], dim=1) if learn_sigma else value

    def unconditional(x, t, y):
        return output(mixture.x_start(x, *scales(x, t)), x, t)

    def classifier(x, t):
        return mixture.logits(x, *scales(x, t))[:, 0]

    for t in (torch.full((8,), 3), torch.full((8,), 500), torch.arange(8) * 100):
        found = ClassifierGuidance(unconditional, classifier, diffusion, 1.0)(x, t, y=y)
        exact = mixture.of_class(x, *scales(x, t))[torch.arange(8), :, y]
        torch.testing.assert_close(found, output(exact, x, t), rtol=1e-7, atol=1e-7)
        none = ClassifierGuidance(unconditional, classifier, diffusion, 0.0)(x, t, y=y)
        torch.testing.assert_close(none, unconditional(x, t, y))
        twice = ClassifierGuidance(unconditional, classifier, diffusion, 2.0)(x, t, y=y)
        torch.testing.assert_close(twice - none, 2 * (found - none))


def test_classifier_guidance_while_sampling(mixture, predicts_start):
    """Samples of an unconditional model follow the labels; the loop's own gradients are off."""
    y = torch.arange(2).repeat(50)
    unconditional = mixture.model(predicts_start)

    def classifier(x, t):
        sigma = predicts_start.sigmas_of(t, x)[..., None]
        return mixture.logits(x, 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt())[:, 0]

    guided = ClassifierGuidance(lambda x, t, y: unconditional(x, t), classifier, predicts_start, 1.0)
    noise = torch.randn(100, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = samplers.sample(guided, noise, predicts_start.respace(50), y=y)
    assert not drawn.requires_grad
    for label, mean in enumerate(mixture.means.tolist()):
        assert drawn[y == label].mean().item() == pytest.approx(mean, abs=0.2)
