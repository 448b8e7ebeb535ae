import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

from ditbook import weights
from ditbook.weights import checkpoint

FOLDER = Path(weights.__file__).parent
LIMIT = 80_000_000  # bytes of all weights together


def test_every_weight_has_a_recipe_and_every_recipe_its_weight():
    assert weights.names() == sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", weights.names())
def test_weights_load_and_say_where_they_come_from(name):
    model, about = weights.load(name), weights.metadata(name)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert about["metric"]
    assert about["version"]
    assert "note" not in about  # trained as long as the recipe says
    recipe = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    assert {key: about[key] for key in recipe} == recipe


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < LIMIT


def test_smaller_patches_were_worth_their_computation():
    errors = [
        weights.metadata(name)["metric"]["held-out mse of eps"]
        for name in ("dit-digits-patch8", "dit-digits-patch4", "dit-digits")
    ]
    assert errors == sorted(errors, reverse=True)


def test_unknown_names_and_families_are_refused():
    with pytest.raises(ValueError, match=r"no weights named 'dit-cats'; there are .*, dit-digits, "):
        weights.load("dit-cats")
    families = ", ".join(sorted(weights.FAMILIES))
    assert "autoencoder, autoregressive-prior, bert" in families
    with pytest.raises(ValueError, match=rf"no family of models 'gan'; there are {families}"):
        weights.build("gan", {})


def test_a_config_with_other_fields_is_refused():
    with pytest.raises(ValueError, match=r"UNet cannot be built from \{'depth': 3\}: .*unexpected .*'depth'"):
        weights.build("unet", {"depth": 3})


def test_a_path_serves_as_a_name(tmp_path):
    path = tmp_path / "mine.safetensors"
    shutil.copy(FOLDER / "dit-digits.safetensors", path)
    mine, shipped = weights.load(str(path)).state_dict(), weights.load("dit-digits").state_dict()
    assert all(torch.equal(mine[name], shipped[name]) for name in shipped)
    assert weights.metadata(str(path)) == weights.metadata("dit-digits")
    with pytest.raises(FileNotFoundError, match="no weight file at"):
        weights.load(str(tmp_path / "none.safetensors"))


def test_a_summary_counts_what_the_model_has():
    about, model = weights.summary("dit-digits"), weights.load("dit-digits")
    assert about.name == "dit-digits"
    assert about.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert about.bytes == (FOLDER / "dit-digits.safetensors").stat().st_size
    assert about.metric == weights.metadata("dit-digits")["metric"]
    assert "DiT" in about.description


def test_metadata_and_summary_read_no_tensor(monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    monkeypatch.setattr(checkpoint, "_sum_of", None)
    assert weights.metadata("dit-digits")["family"] == "dit"
    assert weights.summary("dit-digits").parameters > 500_000


def test_a_package_in_a_zip_file_loads_its_weights(tmp_path):
    source = FOLDER.parent
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as file:
        for path in (*source.rglob("*.py"), FOLDER / "unet-digits.safetensors"):
            file.write(path, path.relative_to(source.parent))
    code = "from ditbook import weights; print(weights.__file__, weights.names(), type(weights.load('unet-digits')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "package.zip")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "package.zip" in done.stdout
    assert "['unet-digits'] <class 'ditbook.models.unet.UNet'>" in done.stdout


@pytest.mark.parametrize(
    ("use", "loaded"),
    [
        ("weights.names(), weights.metadata('dit-digits')", []),
        ("weights.load('clip-shapes')", ["ditbook.models.clip"]),
    ],
)
def test_only_what_is_loaded_is_imported(use, loaded):
    models = "[m for m in sorted(sys.modules) if m.startswith(('ditbook.models.', 'ditbook.training'))]"
    code = f"import sys; from ditbook import weights; {use}; print({models})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loaded)


def test_a_file_that_misses_a_tensor_is_refused(tmp_path):
    broken = tmp_path / "broken.safetensors"
    tensors, about = checkpoint.load(FOLDER / "dit-digits.safetensors")
    checkpoint.save(broken, {key: value for key, value in tensors.items() if "blocks.3" not in key}, about)
    with pytest.raises(ValueError, match=r"(?s)broken\.safetensors does not hold the model.*Missing key.*blocks\.3"):
        weights.load(str(broken))
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"broken\.safetensors is truncated"):
        weights.load(str(broken))
