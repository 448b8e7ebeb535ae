import pytest
import torch
from safetensors.torch import save_file

from ditbook.weights import checkpoint

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_there_and_back_with_metadata(tmp_path):
    path = tmp_path / "new" / "folder" / "w.safetensors"
    checkpoint.save(path, TENSORS, {"steps": 3, "name": "ε", "nested": {"x": [1, 2.5, None]}})
    tensors, metadata = checkpoint.load(path)
    assert same(tensors, TENSORS)
    assert tensors["b"].dtype == torch.int64
    assert metadata == {"steps": 3, "name": "ε", "nested": {"x": [1, 2.5, None]}}
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]


def test_transposed_tensors_keep_their_values(tmp_path):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, {"t": TENSORS["a"].T}, {})
    assert torch.equal(checkpoint.load(path)[0]["t"], TENSORS["a"].T)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*none\.safetensors"):
        checkpoint.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.99])
def test_truncated_file(tmp_path, share):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, TENSORS, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"w\.safetensors is truncated or no safetensors file"):
        checkpoint.load(path)


def test_other_kind_of_file(tmp_path):
    path = tmp_path / "w.safetensors"
    torch.save(TENSORS, path)
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        checkpoint.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program(tmp_path, metadata):
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path, metadata)
    with pytest.raises(ValueError, match=r"was not written by ditbook: its metadata lacks format 'ditbook-1'"):
        checkpoint.load(path)


@pytest.mark.parametrize("broken", ["write", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, TENSORS, {"version": 1})

    def half(tensors, target, metadata):
        target.write_bytes(b"half a file")
        raise OSError("disk full")

    def refuse(source, target):
        assert source.is_file()
        raise OSError("disk full")

    if broken == "write":
        monkeypatch.setattr(checkpoint, "save_file", half)
    else:
        monkeypatch.setattr(checkpoint.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"a": torch.zeros(1)}, {"version": 2})
    monkeypatch.undo()
    tensors, metadata = checkpoint.load(path)
    assert same(tensors, TENSORS)
    assert metadata == {"version": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, TENSORS, {"version": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(path, TENSORS, {"version": object()})
    assert checkpoint.load(path)[1] == {"version": 1}
