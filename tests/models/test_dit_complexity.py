"""What a DiT costs: the paper's tables, and the formulas against running models."""

import dataclasses

import pytest
import torch
from torch import nn

from ditbook.metrics import complexity
from ditbook.models.dit import BLOCKS, MODELS, DiT, DiTConfig

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
