"""What the pages load holds the network whole: its tensors in order, as the shipped file has them."""

import base64
import json

import numpy as np
import pack_weights
import pytest
import torch

from ditbook import weights


@pytest.fixture(scope="module")
def packed():
    script = pack_weights.packed()
    assert len(script) <= pack_weights.LARGEST
    return json.loads(script.removeprefix("window.DIT = ").removesuffix(";\n"))


def test_every_tensor_can_be_read_back(packed):
    numbers, at = np.frombuffer(base64.b64decode(packed["base64"]), "<f2"), 0
    state = weights.load(pack_weights.NAME).state_dict()
    assert [name for name, _ in packed["tensors"]] == list(state)
    for name, count in packed["tensors"]:
        found = torch.from_numpy(numbers[at : at + count].astype("f4"))
        assert torch.equal(found, state[name].flatten()), name
        at += count
    assert at == len(numbers)


def test_the_worker_and_what_it_must_know_travel_along(packed):
    assert packed["config"] == weights.metadata(pack_weights.NAME)["model"]
    assert packed["worker"] == (pack_weights.STATIC / "dit.js").read_text(encoding="utf-8")


def test_weights_too_large_for_a_page_are_refused():
    with pytest.raises(ValueError, match=r"dit-digits-28 packs into [\d,]+ bytes; a page may load 2,000,000"):
        pack_weights.packed("dit-digits-28")


def test_the_script_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_weights, "PACKED", tmp_path / "vendor" / "weights.js")
    pack_weights.pack()
    assert pack_weights.PACKED.read_text(encoding="utf-8") == pack_weights.packed()
