import pytest
import torch

from ditbook.convert.keys import check, join_qkv, plain, split_qkv


def test_queries_keys_and_values_come_apart_and_together_again():
    state = {"a.to_qkv.weight": torch.arange(12.0).view(6, 2), "a.to_qkv.bias": torch.arange(6.0), "b": torch.ones(2)}
    apart = split_qkv(state)
    assert set(apart) == {f"a.to_{letter}.{kind}" for letter in "qkv" for kind in ("weight", "bias")} | {"b"}
    assert apart["a.to_k.bias"].tolist() == [2, 3]
    joined = join_qkv(apart)
    assert joined.keys() == state.keys()
    assert all(torch.equal(joined[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": (2,)}, "not these weights in the test layout: key 'b' is missing"),
        ({"a": (2,), "b": (3,), "c": (1,)}, "not these weights in the test layout: key 'c' is unexpected"),
        ({"a": (2, 1), "b": (3,)}, r"test layout: 'a' has shape \(2, 1\), this model needs \(2,\)"),
    ],
)
def test_other_keys_are_refused(found, message):
    wanted = {"a": torch.zeros(2), "b": torch.zeros(3)}
    check(wanted, wanted, "test")
    with pytest.raises(ValueError, match=message):
        check({key: torch.zeros(shape) for key, shape in found.items()}, wanted, "test")


def test_values_that_are_not_finite_are_refused():
    wanted = {"a": torch.zeros(2)}
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="test layout: 'a' holds values that are not finite"):
            check({"a": torch.tensor([0.0, bad])}, wanted, "test")


STATE = {"a.weight": torch.ones(2), "b": torch.zeros(3)}


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {f"module.{key}": value for key, value in STATE.items()},
        {f"_orig_mod.{key}": value for key, value in STATE.items()},
        {f"module._orig_mod.{key}": value for key, value in STATE.items()},
        {"state_dict": STATE, "epoch": 3},
        {"model": {"a.weight": torch.zeros(2)}, "ema": STATE, "opt": {"state": {}}, "args": None},
        {"model": {f"module.{key}": value for key, value in STATE.items()}, "step": 7},
    ],
    ids=["plain", "DistributedDataParallel", "compiled", "both", "Lightning", "with EMA", "checkpoint"],
)
def test_a_state_dict_is_found_wherever_it_is_wrapped(wrapped):
    found = plain(wrapped)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_prefix_that_some_keys_have_stays():
    assert plain({"module.a": torch.ones(1), "b": torch.ones(1)}).keys() == {"module.a", "b"}
