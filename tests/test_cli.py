import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from ditbook import cli, pipeline, plotting, weights
from ditbook.training import recipes
from ditbook.weights import checkpoint


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failing(capsys, *arguments):
    """What a command that fails writes: one line on stderr, after the bars."""
    assert cli.main(arguments) == 1
    written = capsys.readouterr()
    assert "Traceback" not in written.err
    return written.err.rstrip("\n")


def test_sample_saves_the_images_of_the_pipeline(capsys, empty_folder):
    command = ["sample", "dit-shapes-latent", "--labels", "red circle, 12", "--guidance-scale", "3", "--steps", "4"]
    assert cli.main([*command, "--seed", "1", "--out", "new/grid.png"]) == 0
    assert capsys.readouterr().out == "new/grid.png\n"
    images = pipeline.load("dit-shapes-latent").sample(["red circle", 12], guidance_scale=3.0, steps=4, seed=1)
    plotting.grid(images, titles=["red circle", "12"]).savefig("wanted.png", dpi=plotting.DPI)
    with Image.open("new/grid.png") as one, Image.open("wanted.png") as other:
        assert one.tobytes() == other.tobytes()


def test_sample_without_classes(empty_folder):
    assert cli.main(["sample", "unet-digits", "--count", "2", "--steps", "2"]) == 0
    assert [path.name for path in empty_folder.iterdir()] == ["samples.png"]


def test_weights_lists_all_of_them_with_size_and_purpose(capsys):
    assert cli.main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == weights.names()
    start = lines.index(next(line for line in lines if line.startswith("dit-digits:")))
    assert lines[start : start + 3] == [
        "dit-digits: 1.5 MB, 724,232 parameters",
        "    A class-conditional DiT for the 8×8 digits: 16 tokens. Chapter 16",
        "    agreement at guidance 2: 1, held-out mse of eps: 0.0727",
    ]


def test_train_says_what_it_wrote_and_where_it_went_on(capsys, monkeypatch, empty_folder):
    asked = []

    def train(name, **options):
        asked.append((name, options))
        return {"mse": 0.25}

    monkeypatch.setattr(recipes, "train", train)
    assert cli.main(["train", "unet-digits"]) == 0
    assert capsys.readouterr().out == "unet-digits.safetensors (mse: 0.25)\n"
    (empty_folder / "runs").mkdir()
    (empty_folder / "runs/unet-digits.safetensors").touch()
    assert cli.main(["train", "unet-digits", "--steps", "3", "--device", "cuda", "--out", "x.safetensors"]) == 0
    assert capsys.readouterr().out == (
        "going on from runs/unet-digits.safetensors; remove it to start anew\nx.safetensors (mse: 0.25)\n"
    )
    options = [(name, {key: str(value) for key, value in given.items()}) for name, given in asked]
    assert options == [
        ("unet-digits", {"device": "cpu", "steps": "None", "out": "unet-digits.safetensors"}),
        ("unet-digits", {"device": "cuda", "steps": "3", "out": "x.safetensors"}),
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample dit-cats --labels 3", "ditbook sample: no weights named 'dit-cats'; there are autoencoder-emoji, "),
        ("sample clip-shapes --labels 3", "ditbook sample: clip-shapes does not generate images; those that do are"),
        ("sample dit-digits --labels cat", "ditbook sample: no label 'cat'; there are 0, 1, 2"),
        ("sample dit-digits", "ditbook sample: labels must be a list with one label for each image: 0, 1, 2"),
        ("sample dit-digits --labels 3 --steps 1", "ditbook sample: steps must be a whole number, 2 to 1000, got 1"),
        ("sample dit-digits --labels 3 --guidance-scale -1", "ditbook sample: guidance_scale must be 0 or more"),
        ("sample none.safetensors --labels 3", "ditbook sample: no weight file at none.safetensors"),
        ("train dit-cats", "ditbook train: no recipe named 'dit-cats'; there are autoencoder-emoji, "),
        ("train unet-digits --steps 0", "ditbook train: steps and batch_size must be positive, got 0"),
        ("train unet-digits --device quantum", "ditbook train: no device 'quantum' here: "),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(capsys, empty_folder, command, message):
    line = failing(capsys, *command.split())
    assert line.startswith(message)
    assert "\n" not in line
    assert list(empty_folder.iterdir()) == []


def test_a_broken_weight_file_is_named(capsys, empty_folder):
    (empty_folder / "mine.safetensors").write_bytes(b"no weights")
    line = failing(capsys, "sample", "mine.safetensors", "--labels", "3")
    assert line.startswith("ditbook sample: mine.safetensors is truncated or no safetensors file")
    tensors = {"weight": torch.zeros(2)}  # PyTorch lists what is missing and what is too much in many lines
    checkpoint.save("mine.safetensors", tensors, weights.metadata("unet-digits"))
    line = failing(capsys, "sample", "mine.safetensors", "--count", "3")
    assert line.startswith("ditbook sample: mine.safetensors does not hold the model that its metadata names")
    assert "\n" not in line


def test_the_bug_of_a_program_is_no_error_of_its_user(monkeypatch):
    monkeypatch.setattr(weights, "names", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["weights"])


def test_ctrl_c_is_exit_code_130(capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "train", interrupted)
    assert cli.main(["train", "unet-digits"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("command", [[], ["fly"], ["train"], ["sample", "dit-digits", "--steps", "many"]])
def test_wrong_usage_is_exit_code_2(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ditbook")


@pytest.mark.parametrize("command", [[], ["train"], ["sample"], ["weights"]])
def test_help_of_each_command(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(" ".join(["usage: ditbook", *command]))
    for option in {
        "train": ["--device", "--steps", "--out", "runs/NAME.safetensors", "--shard", "--dry-run"],
        "sample": ["--labels", "--seed"],
    }.get("".join(command), []):
        assert option in text


def test_python_m_ditbook_is_the_command():
    environment = os.environ | {"TQDM_DISABLE": "1"}
    run = [sys.executable, "-m", "ditbook"]
    done = subprocess.run([*run, "sample", "dit-cats"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    helped = subprocess.run([*run, "--help"], env=environment, capture_output=True, text=True, check=True)
    assert helped.stdout.startswith("usage: ditbook ")
    light = "import sys, ditbook.cli; ditbook.cli.parser(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", light], text=True) == "False\n"


def test_a_short_training_can_be_sampled_from(capsys, empty_folder):
    assert cli.main(["train", "unet-digits", "--steps", "2"]) == 0
    assert "held-out mse of eps" in capsys.readouterr().out
    assert cli.main(["sample", "unet-digits.safetensors", "--count", "2", "--steps", "2", "--out", "x.png"]) == 0
    assert sorted(path.name for path in empty_folder.iterdir()) == ["runs", "unet-digits.safetensors", "x.png"]


def test_export_writes_both_layouts(capsys, empty_folder):
    assert cli.main(["export", "dit-digits", "--layout", "official", "--out", "new/dit.safetensors"]) == 0
    assert cli.main(["export", "dit-digits", "--layout", "diffusers", "--out", "new/dit"]) == 0
    assert capsys.readouterr().out == "new/dit.safetensors\nnew/dit\n"
    assert sorted(path.name for path in empty_folder.rglob("*.*")) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "dit.safetensors",
    ]
    message = failing(capsys, "export", "clip-shapes", "--layout", "official", "--out", "clip.safetensors")
    assert message == "ditbook export: clip-shapes is a CLIP, no DiT"
