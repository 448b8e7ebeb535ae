import shutil
import tomllib
from pathlib import Path

import pytest

from ditbook import weights
from ditbook.weights import checkpoint

FOLDER = Path(weights.__file__).parent
LIMIT = 25_000_000  # bytes of all weights together


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
    with pytest.raises(
        ValueError, match=r"no family of models 'gan'; there are autoencoder, clip, dit, scene-reader, .*unet"
    ):
        weights.build("gan", {})


def test_a_broken_file_is_refused(tmp_path, monkeypatch):
    broken = tmp_path / "dit-digits.safetensors"
    shutil.copy(FOLDER / broken.name, broken)
    monkeypatch.setattr(weights, "_path", lambda name: broken)
    tensors, about = checkpoint.load(broken)
    checkpoint.save(broken, {key: value for key, value in tensors.items() if "blocks.3" not in key}, about)
    with pytest.raises(RuntimeError, match=r"Missing key.*blocks\.3"):
        weights.load("dit-digits")
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated"):
        weights.load("dit-digits")
