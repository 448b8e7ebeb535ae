import pytest
import torch

from ditbook.metrics import complexity
from ditbook.models.vit import ViT, ViTConfig

CONFIG = ViTConfig(size=12, channels=3, patch=4, width=24, depth=2, heads=3, num_classes=7)


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 12, 12\); this model takes \(batch, 3, 12, 12\)"):
        ViT(CONFIG)(torch.zeros(2, 1, 12, 12))
    with pytest.raises(ValueError, match=r"images of type torch.uint8"):
        ViT(CONFIG)(torch.zeros(2, 3, 12, 12, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 10}, "size 10 is not divisible by patch 4"),
        ({"heads": 5}, "width 24 is not divisible by heads 5"),
        ({"patch": 0}, "patch 0 must be at least 1"),
        ({"depth": -2}, "depth -2 must be"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig(**{**vars(CONFIG), **change})


def test_the_paper_s_base_model_has_86_million_parameters():
    assert ViTConfig().complexity().trainable == 86_567_656


@pytest.mark.equation("7.1", of="ditbook.models.vit.ViTConfig.tokens", against="the patches of an image, counted")
@pytest.mark.equation(
    "7.5", of="ditbook.models.vit.ViTConfig.complexity", against="PyTorch's counter on a running model"
)
@pytest.mark.parametrize("config", [CONFIG, ViTConfig(), ViTConfig(size=8, channels=1, patch=2, width=12, heads=3)])
def test_tokens_and_complexity(config):
    with torch.device("meta"):
        model, image = ViT(config), torch.empty(1, config.channels, config.size, config.size)
        assert model.encode(image).shape[1] == config.tokens
        assert config.complexity() == complexity.measure(model, image)
    corners = [(y, x) for y in range(0, config.size, config.patch) for x in range(0, config.size, config.patch)]
    assert config.tokens == len(corners) + 1
