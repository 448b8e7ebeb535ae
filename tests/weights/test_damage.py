"""Damaged weight files: whatever is wrong is a ValueError that names the file, and none loads."""

import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ditbook import pipeline, weights
from ditbook.weights import checkpoint

FILES = 300
ABOUT = {"family": "unet", "model": {"size": 8, "width": 8, "multipliers": [1]}, "metric": {"mse": 0.1}, "name": "ε"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    torch.manual_seed(0)
    checkpoint.save(path, weights.build(ABOUT["family"], ABOUT["model"]).half().state_dict(), ABOUT)
    return path


def header_length(data):
    return 8 + int.from_bytes(data[:8], "little")


def somewhere(data, chance):
    """A place in the header as often as one in the tensors."""
    return chance.randrange(header_length(data) if chance.random() < 0.5 else len(data))


def flipped(data, chance):
    data = bytearray(data)
    data[somewhere(data, chance)] ^= 1 << chance.randrange(8)
    return data


def zeroed(data, chance):
    start, length = somewhere(data, chance), chance.choice([1, 16, 512, 4096])
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def overwritten(data, chance):
    start, length = somewhere(data, chance), chance.choice([1, 2, 16, 512])
    return data[:start] + chance.randbytes(len(data[start : start + length])) + data[start + length :]


def truncated(data, chance):
    return data[: somewhere(data, chance)]


def extended(data, chance):
    return data + chance.randbytes(chance.choice([1, 8, 100]))


def shifted(data, chance):
    start = somewhere(data, chance)
    return data[:start] + data[start + 1 :] + b"\0"


def exchanged(data, chance):
    one, other = sorted(chance.sample(range(header_length(data), len(data) - 64), 2))
    return data[:one] + data[other : other + 64] + data[one + 64 : other] + data[one : one + 64] + data[other + 64 :]


BYTES = (flipped, zeroed, overwritten, truncated, extended, shifted, exchanged)


def renamed(tensors, header, chance):
    name = chance.choice(list(tensors))
    return tensors | {name + chance.choice("xyz"): tensors.pop(name)}, header


def missing(tensors, header, chance):
    tensors.pop(chance.choice(list(tensors)))
    return tensors, header


def added(tensors, header, chance):
    return tensors | {"more.weight": torch.zeros(2)}, header


def other_type(tensors, header, chance):
    name = chance.choice(list(tensors))
    return tensors | {name: tensors[name].to(chance.choice([torch.float32, torch.bfloat16, torch.int64]))}, header


def other_shape(tensors, header, chance):
    name = chance.choice(list(tensors))
    return tensors | {name: tensors[name][None]}, header


def other_values(tensors, header, chance):
    name = chance.choice(list(tensors))
    return tensors | {name: tensors[name] + 1}, header


def no_sum(tensors, header, chance):
    header.pop(chance.choice(["sha256", "metadata sha256", "format", "ditbook"]))
    return tensors, header


def no_json(tensors, header, chance):
    text = chance.choice(["", "{", "[]", "null", '{"family": "unet"}', "\ud7ff", header["ditbook"][:-1]])
    return tensors, header | {"ditbook": text}


def no_object(tensors, header, chance):
    """Metadata with a right checksum, as another tool may write them."""
    text = chance.choice(["", "{", "[]", "null", "3", '"unet"', "[" * 10**5, json.dumps([ABOUT])])
    return tensors, header | {"ditbook": text, "metadata sha256": checkpoint._sum_of_text(text)}


PARTS = (no_object, renamed, missing, added, other_type, other_shape, other_values, no_sum, no_json)
CONFIGS = (  # whole files of another model
    {"model": {}},
    {"model": ABOUT["model"] | {"width": 16}},
    {"model": ABOUT["model"] | {"width": "8"}},
    {"model": ABOUT["model"] | {"width": 9}},
    {"model": ABOUT["model"] | {"depth": 2}},
    {"model": ABOUT["model"] | {"multipliers": [1, 2]}},
    {"model": ABOUT["model"] | {"multipliers": 1}},
    {"model": None},
    {"model": []},
    {"family": "gan"},
    {"family": None},
    {"family": ["unet"]},
    {"family": "autoencoder"},
    {"family": "dit", "model": {"depth": 1, "width": 8, "heads": 2}},
    {"model": ABOUT["model"] | {"width": 8.0}},
    {"model": ABOUT["model"] | {"blocks": True}},
    {"model": ABOUT["model"] | {"multipliers": [1.5]}},
    {"model": ABOUT["model"] | {"multipliers": "1"}},
)


def damage(whole, path, chance):
    """Write a damaged copy; say how it was done."""
    kind = chance.choice((*BYTES, *PARTS, "config"))
    if kind in BYTES:
        path.write_bytes(kind(whole.read_bytes(), chance))
        return kind.__name__
    with safe_open(whole, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if kind in PARTS:
        tensors, header = kind(tensors, header, chance)
        save_file(tensors, path, header)
        return kind.__name__
    about = json.loads(header["ditbook"]) | chance.choice(CONFIGS)
    if chance.random() < 0.2:
        about.pop(chance.choice(["family", "model"]))
    checkpoint.save(path, tensors, about)
    return f"config {about}"


def test_the_whole_file_loads(whole):
    model = weights.load(str(whole))
    assert sum(parameter.numel() for parameter in model.parameters()) == checkpoint.count(whole)


def test_damaged_files_say_so(whole, tmp_path):
    chance, kinds, n = random.Random(0), set(), 0
    while n < FILES:
        path = tmp_path / f"damaged{n}.safetensors"
        how = damage(whole, path, chance)
        if path.read_bytes() == whole.read_bytes():
            continue
        n += 1
        kinds.add(how.split()[0])
        with pytest.raises(ValueError, match=path.name) as error:  # noqa: PT012
            weights.load(str(path))
            pytest.fail(f"{how} loaded")
        assert type(error.value) is ValueError, how
    assert len(kinds) == len(BYTES) + len(PARTS) + 1


@pytest.mark.parametrize("change", CONFIGS)
def test_whole_files_of_another_model_say_so(whole, tmp_path, change):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, checkpoint.load(whole)[0], ABOUT | change)
    with pytest.raises(ValueError, match=r"w\.safetensors does not hold the model that its metadata names"):
        weights.load(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": None}, "has the metric None in its metadata; it must be a table of numbers"),
        ({"metric": 0.1}, "has the metric 0.1 "),
        ({"metric": {"mse": "low"}}, "has the metric {'mse': 'low'} "),
        ({"metric": {"mse": True}}, "has the metric {'mse': True} "),
        ({"description": 3}, "has the description 3 in its metadata; it must be a text"),
        ({"description": None}, "has the description None "),
    ],
)
def test_a_summary_of_other_metadata_is_refused(whole, tmp_path, change, message):
    path, about = tmp_path / "w.safetensors", ABOUT | {"description": "a U-Net"}
    checkpoint.save(path, checkpoint.load(whole)[0], about)
    assert weights.summary(str(path)).description == "a U-Net"
    lacks = {key: value for key, value in (about | change).items() if value is not None}
    for wrong in (about | change, lacks):
        checkpoint.save(path, checkpoint.load(whole)[0], wrong)
        with pytest.raises(ValueError, match=rf"w\.safetensors {message}"):
            weights.summary(str(path))


@pytest.mark.parametrize("text", ["[]", "null", "{", "[" * 10**5, '"unet"'])
def test_metadata_that_are_no_object_are_refused_by_all_readers(whole, tmp_path, text):
    path = tmp_path / "w.safetensors"
    with safe_open(whole, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, path, header | {"ditbook": text, "metadata sha256": checkpoint._sum_of_text(text)})
    for read in (weights.load, weights.metadata, weights.summary, pipeline.load):
        with pytest.raises(ValueError, match=r"w\.safetensors has metadata that is no JSON"):
            read(str(path))


def test_damaged_metadata_are_noticed_without_the_tensors(whole, tmp_path):
    path, data = tmp_path / "w.safetensors", whole.read_bytes()
    path.write_bytes(data.replace(b"mse", b"msf"))
    for read in (checkpoint.metadata, checkpoint.count, checkpoint.load):
        with pytest.raises(ValueError, match=r"w\.safetensors is damaged: its metadata"):
            read(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert checkpoint.metadata(path) == ABOUT
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged: its tensors"):
        checkpoint.load(path)
