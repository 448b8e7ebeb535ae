"""Bad ends of a run: each says in one line what is wrong, and nothing is lost."""

import logging
import resource
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import two_processes as two

from ditbook import cli
from ditbook.training import launch
from ditbook.training.distributed import Layout, joined
from ditbook.training.snapshots import Snapshots
from ditbook.training.tasks.digits import Digits
from ditbook.weights import checkpoint


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a recipe that is measured at once."""
    (tmp_path / "tiny.toml").write_text(two.RECIPE)
    monkeypatch.setattr(Digits, "evaluate", lambda self, model: {"metric": 0.0})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(tiny, **options):
    return launch.train("tiny.toml", Layout(), runs=tiny / "runs", **options)


def test_a_corrupt_newest_checkpoint_is_passed_over_with_a_warning(tiny, caplog):
    train(tiny, steps=2)
    train(tiny, steps=4)
    train(tiny, steps=6, out="good.safetensors")
    newest = tiny / "runs/tiny/step-00000006"
    assert [path.name for path in sorted((tiny / "runs/tiny").iterdir())] == ["step-00000004", newest.name]
    file = next(newest.glob("*.distcp"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(tiny, steps=6, out="again.safetensors")
    first, second = [record.message for record in caplog.records if record.name.startswith("ditbook")]
    assert "step-00000006 is passed over: __0_0.distcp is damaged" in first
    assert "step-00000004; remove" in second
    good, again = (checkpoint.load(f"{name}.safetensors")[0] for name in ("good", "again"))
    assert all(torch.equal(good[name], again[name]) for name in good)
    (tiny / "runs/tiny/step-00000004/sums-0.json").unlink()
    (tiny / "runs/tiny/step-00000006/about.json").write_text("{")
    with pytest.raises(ValueError, match=r"no checkpoint in .*tiny is whole; remove the folder to start anew"):
        train(tiny, steps=6)


def test_a_full_disk(tiny):
    train(tiny, steps=2)
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, kept[1]))
    try:
        with pytest.raises(OSError, match=r"^the checkpoint of step 4 could not be written \(.* GB are free\): "):
            train(tiny, steps=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert [path.name for path in (tiny / "runs/tiny").iterdir()] == ["step-00000002"]
    train(tiny, steps=4)


def test_another_recipe(tiny):
    train(tiny, steps=2)
    (tiny / "tiny.toml").write_text(two.RECIPE.replace("batch_size = 8", "batch_size = 16"))
    with pytest.raises(ValueError, match=r"step-00000002 was trained with batch_size 8, not 16; use another path"):
        train(tiny, steps=4)
    (tiny / "tiny.toml").write_text(two.RECIPE.replace("width = 16", "width = 20"))
    with pytest.raises(ValueError, match=r"with other shapes \(patch_embed.*: \[16.*, not \[20.*\)"):
        train(tiny, steps=4)
    (tiny / "tiny.toml").write_text(two.RECIPE)
    with pytest.raises(ValueError, match=r"was trained with other parts \(1, not 2\)"):
        train(tiny, steps=4, parts=2)
    with pytest.raises(ValueError, match=r"tiny holds 2 steps, more than 1; use another path"):
        train(tiny, steps=1)


def test_parts_that_do_not_fit(tiny):
    with pytest.raises(ValueError, match="a batch of 8 rows cannot be split into 3 equal parts"):
        train(tiny, parts=3)
    with joined("cpu") as world:
        four = type(world)(0, 4, world.device, world.group)
        with pytest.raises(ValueError, match="a batch in 2 parts cannot be shared by 4 processes"):
            launch.engine.Engine(two.model(), two.loss, two.CONFIG, Layout(), four, 2)


WHOLE = "bert-manual clip-emoji clip-shapes dvae summaries-imitation summaries-ppo translation-dot"


@pytest.mark.parametrize("name", WHOLE.split())
def test_a_recipe_whose_batches_cannot_be_split(name, monkeypatch):
    recipe = launch.recipes.load(name)
    monkeypatch.setattr(type(recipe.task), "data", lambda self: {})
    with pytest.raises(ValueError, match=f"{name} trains in one process only"):
        launch.data_of(recipe, launch.weights.build(recipe.table["family"], recipe.table["model"]))


def test_a_port_in_use(tiny, capsys, monkeypatch):
    with two.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        assert cli.main(["train", "tiny.toml"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"ditbook train: the processes cannot meet at 127.0.0.1:{port}; is the port in use?")
    assert err.count("\n") == 1


def test_the_command_says_which_process_speaks(tiny, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["train", "tiny.toml", "--device", "quantum"]) == 1
    assert capsys.readouterr().err.startswith("ditbook train, process 1: ")


def test_the_command_trains_and_writes_one_file(tiny, capsys):
    assert cli.main(["train", "tiny.toml", "--steps", "2", "--shard", "fsdp", "--recompute", "--parts", "4"]) == 0
    assert capsys.readouterr().out == "tiny.safetensors (metric: 0)\n"
    _, about = checkpoint.load("tiny.safetensors")
    assert about["training"]["steps"] == 2
    assert about["note"] == "2 of the recipe's 60 steps"
    with joined("cpu") as world:
        found = Snapshots("runs/tiny", world).newest()
    assert found.about["parts"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [({"shard": "zero"}, "no way to shard 'zero'"), ({"precision": "float8"}, "no precision 'float8'")],
)
def test_a_layout_that_is_not_there(change, message):
    with pytest.raises(ValueError, match=message):
        Layout(**change)
