"""What a run costs: counts of the paper, memory by part, and days."""

import dataclasses

import pytest
import torch
from torch import nn

from ditbook import cli
from ditbook.models.dit import DiTConfig
from ditbook.training import recipes
from ditbook.training.budget import CARDS, EACH, UTILIZATION, Saved, _time, budget, forward
from ditbook.training.distributed import Layout
from ditbook.training.tasks.digits import Digits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents(Digits):
    def example(self, model):
        return {"image": torch.zeros(2, 4, 32, 32), "label": torch.zeros(2, dtype=torch.int64)}


def recipe(name):
    """One of the paper's models with the paper's batch and steps."""
    base = recipes.load("dit-digits")
    table = dict(base.table) | {"model": dataclasses.asdict(DiTConfig.from_name(name))}
    training = dataclasses.replace(base.training, steps=400_000, batch_size=256)
    return dataclasses.replace(base, table=table, task=Latents(), training=training)


@pytest.mark.parametrize(("name", "gflops"), [("DiT-XL/2", 118.64), ("DiT-S/4", 1.41)])
def test_operations_are_those_of_the_paper(name, gflops):
    """Table 4 gives multiply-adds; a step costs three forward passes of two operations each."""
    found = budget(recipe(name), Layout())
    assert found.flops == pytest.approx(6 * gflops * 1e9 * 256, rel=0.01)
    complexity = DiTConfig.from_name(name).complexity()
    assert (found.trainable, found.fixed) == (complexity.trainable, complexity.fixed)
    assert found.flops == 6 * complexity.macs * 256


def test_memory_by_part():
    count = DiTConfig.from_name("DiT-XL/2").complexity().trainable
    one, sharded = (budget(recipe("DiT-XL/2"), Layout(shard=shard), 8) for shard in ("ddp", "fsdp"))
    assert sum(EACH.values()) == 20
    assert one.total - one.memory["activations"] == 20 * count
    for name, each in EACH.items():
        assert one.memory[name] == each * count
        assert sharded.memory[name] == each * count / 8
    assert one.memory["activations"] == sharded.memory["activations"]
    gathered = budget(recipe("DiT-XL/2"), Layout(shard="fsdp", precision="bfloat16"), 8).memory["gathered parameters"]
    more = budget(recipe("DiT-XL/2"), Layout(shard="fsdp"), 8, parts=64).memory
    assert more["gradients"] == 4 * count  # whole until the last part
    assert more["average"] == sharded.memory["average"]
    block = 18 * 1152**2  # and its biases
    assert gathered == pytest.approx(2 * 2 * block, rel=0.25)
    copies = budget(recipe("DiT-XL/2"), Layout(precision="bfloat16"), 8).memory["bfloat16 copies"]
    assert copies == 2 * count


def test_activations_by_precision_parts_and_recomputation():
    def activations(parts=None, **layout):
        return budget(recipe("DiT-S/4"), Layout(**layout), 2, parts).memory["activations"]

    plain = activations()
    assert activations(parts=8) == plain / 4
    assert plain / 2 < activations(precision="bfloat16") < 0.7 * plain
    assert activations(recompute=True) < plain / 6


def test_what_is_kept_for_the_backward_pass():
    """Of two linear maps and a GELU: the three inputs, once each; parameters do not count."""
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).to("meta")
    saved = Saved(model)
    with saved.counting():
        kept = model(torch.empty(5, 8, device="meta"))
    assert kept.shape == (5, 4)
    assert saved.bytes == 4 * 5 * (8 + 16 + 16)


def test_blocks_keep_what_the_whole_keeps_but_for_the_ends():
    model = recipes.weights.build("dit", recipe("DiT-S/4").table["model"]).to("meta")
    found = forward(model, recipe("DiT-S/4"), "float32")
    assert found.kept_in_block * 12 == pytest.approx(found.kept_in_blocks, rel=0.01)
    assert 0.8 * found.kept < found.kept_in_blocks < found.kept
    assert found.inputs == 12 * 4 * (64 * 384 + 384)


def test_days():
    found = budget(recipe("DiT-XL/2"), Layout())
    a100 = found.days(CARDS["A100"], 4, "bfloat16")
    assert a100 == pytest.approx(400_000 * found.flops / (4 * 312e12 * UTILIZATION) / 86_400)
    assert found.days(CARDS["A100"], 8, "bfloat16") == a100 / 2
    assert [_time(days) for days in (12.4, 3.21, 0.5, 0.02, 0.0001)] == [
        "12 days", "3.2 days", "12 hours", "29 minutes", "8.6 seconds"
    ]  # fmt: skip


def test_every_card_has_a_source_and_its_dense_rate():
    assert all(card.source and card.bfloat16 > card.float32 for card in CARDS.values())
    assert CARDS["H100"].bfloat16 == 989  # not the 1,979 with sparsity


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_planned(name, few):
    found = budget(recipes.load(name), Layout())
    assert found.flops > 0
    assert found.memory["activations"] > 0


def test_the_command(capsys):
    command = ["train", "dit-digits", "--dry-run", "--card", "A100", "--cards", "4", "--shard", "fsdp"]
    assert cli.main([*command, "--precision", "bfloat16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "parameters: 724,232, and 1,536 numbers that are not trained"
    assert lines[1] == "memory of each of 4 A100, fsdp, 32 rows at once:"
    assert lines[-4].endswith("of 80 GB: fits")
    assert lines[-2].startswith("6,000 steps: ")
    assert lines[-2].endswith("40% of 4 × 312 TFLOP/s, bfloat16")
    assert lines[-1].startswith("the card: NVIDIA A100")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--card K80", "no card 'K80'; there are RTX-3090, "),
        ("--cards 3", "a batch of 128 rows in 3 parts cannot be shared by 3 devices"),
        ("--cards 0", "the number of devices must be positive, got 0"),
    ],
)
def test_what_cannot_be_planned(capsys, options, message):
    assert cli.main(["train", "dit-digits", "--dry-run", *options.split()]) == 1
    assert capsys.readouterr().err.startswith(f"ditbook train: {message}")
