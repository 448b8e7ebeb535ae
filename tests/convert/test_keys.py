import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

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
OTHER = {"a.weight": torch.zeros(2), "b": torch.ones(3)}


def prefixed(prefix, state=None):
    return {f"{prefix}{key}": value for key, value in (STATE if state is None else state).items()}


WRAPPED = {
    "plain": STATE,
    "DistributedDataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "DistributedDataParallel and compiled": prefixed("module._orig_mod."),
    "compiled in part": {"a._orig_mod.weight": STATE["a.weight"], "b": STATE["b"]},
    "DistributedDataParallel in part": {"a.module.weight": STATE["a.weight"], "b": STATE["b"]},
    "FSDP": {"_fsdp_wrapped_module.a._fsdp_wrapped_module.weight": STATE["a.weight"], "b": STATE["b"]},
    "FSDP of a compiled one, with activation checkpointing": {
        "_orig_mod._fsdp_wrapped_module.a._checkpoint_wrapped_module.weight": STATE["a.weight"],
        "_orig_mod.b": STATE["b"],
    },
    "AveragedModel": prefixed("module.module.") | {"n_averaged": torch.tensor(7)},
    "checkpoint": {"model": prefixed("module."), "step": 7},
    "checkpoint of the tutorial": {"epoch": 2, "model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
    "Lightning": {"state_dict": prefixed("model."), "epoch": 3, "optimizer_states": [{"state": {}}], "loops": {}},
    "Lightning of a compiled one, with a judge": {
        "state_dict": prefixed("model._orig_mod.") | {"judge.a.weight": torch.ones(9)},
        "hyper_parameters": {"model": {"width": 8}},
    },
    "DeepSpeed": {"module": prefixed("module."), "ds_version": "0.16", "param_shapes": [], "optimizer": None},
    "Lightning by DeepSpeed": {"module": prefixed("model."), "ds_version": "0.16"},
    "EMA": {"model": OTHER, "ema": STATE, "opt": {"state": {}}, "args": None},
    "EMA by another name": {"model_state_dict": OTHER, "ema_state_dict": prefixed("module."), "ema_decay": 0.99},
    "EMA by a third name": {"state_dict": OTHER, "model_ema": prefixed("_orig_mod."), "ema": None},
    "EMA that was switched off": {"model": STATE, "ema": {}},
    "EMA inside": {"model": OTHER, "ema": {"ema_model": STATE, "online_model": OTHER, "step": torch.tensor(3)}},
    "EMA in capitals": {"model": OTHER, "EMA": STATE},
    "EMA with a hyphen": {"model": OTHER, "model-ema": STATE},
    "EMA with a dot": {"model": OTHER, "ema.0.9999": STATE},
    "EMA in camel case": {"model": OTHER, "netEMA": STATE},
    "EMA before a capital": {"model": OTHER, "EMAModel": STATE},
    "EMAs": {"model": OTHER, "emas": STATE},
    "optimizer and generators of the EMA": {
        "ema_optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "ema_rng": {"cpu": torch.ones(2)},
        "model": STATE,
    },
    "optimizer of the EMA by prefix": prefixed("model.") | {"ema_optimizer.exp_avg": torch.ones(2)},
    "a word with the letters ema": {"model": STATE, "schema": OTHER},
    "EMA of Lightning": {"state_dict": prefixed("model.", OTHER) | prefixed("ema_model.module.")},
    "EMA of ema-pytorch": prefixed("ema_model.") | prefixed("online_model.", OTHER) | {"initted": torch.tensor(True)},
    "EMA of latent diffusion": prefixed("model.", OTHER)
    | {"model_ema.aweight": STATE["a.weight"], "model_ema.b": STATE["b"], "model_ema.num_updates": torch.tensor(3)},
    "arrays": {key: value.numpy() for key, value in STATE.items()},
    "float8": {key: value.to(torch.float8_e4m3fn) for key, value in STATE.items()},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_state_dict_is_found_wherever_it_is_wrapped(wrapped):
    found = plain(wrapped)
    check(found, STATE, "test")
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_names_without_a_dot_under_a_prefix():
    """A layer's own state dict; latent diffusion's averages have lost the dots of names that stand beside them."""
    layer = {"weight": torch.ones(2), "bias": torch.zeros(2)}
    other = {name: value + 2 for name, value in layer.items()}
    for state in (prefixed("ema.", layer), prefixed("model.", other) | prefixed("ema.", layer)):
        found = plain(state)
        check(found, layer, "test")
        assert all(torch.equal(found[key], layer[key]) for key in layer)
    strange = plain(prefixed("model.") | {"ema.weights": torch.ones(2)})  # no average of what stands under `model.`
    assert strange.keys() == {"weights"}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"optimizer_state_dict": {"zero_stage": 2, "partition_count": 4}}, r"ZeRO .* by .*zero_to_fp32\.py FOLDER"),
        ({"module": prefixed("", {"a": torch.empty(0)}), "ds_version": "0.16"}, r"shard of a DeepSpeed ZeRO"),
        ({"module": None, "ds_version": "0.16", "param_shapes": []}, r"shard of a DeepSpeed ZeRO"),
        ({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}}, r"_flat_param' .*FULL_STATE_DICT"),
        ({"ema": {"decay": 0.9, "shadow_params": [torch.ones(2)]}, "model": STATE}, r"without names .*ema\.copy_to"),
        ({"shadow_params": [torch.ones(2)]}, r"without names"),
        ({"ema": torch.nn.Linear(2, 2), "model": STATE}, r"'ema' holds a whole Linear; pass its state_dict\(\)"),
        ({"state": {0: {"step": 1}}, "param_groups": []}, r"the state of an optimizer, not of a model"),
        ({"module.a": torch.ones(2), "a": torch.zeros(2)}, r"two values for 'a'"),
        (torch.nn.Linear(2, 2), r"a Linear is no state dict; pass what model\.state_dict\(\) or torch\.load gives"),
        ([torch.ones(2)], r"a list is no state dict"),
    ],
)
def test_what_is_no_whole_state_dict_is_refused_with_the_reason(state, message):
    with pytest.raises(ValueError, match=message):
        plain(state)


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (prefixed("painter."), r"the file has 'painter\.a\.weight': take 'painter\.' off its names"),
        ({"generator": STATE, "epoch": 2}, r"the file has 'generator', 'epoch'"),
        ({}, r"the file has no key"),
        ({str(k): torch.ones(1) for k in range(5)}, r"the file has '0', '1', '2' …"),
    ],
)
def test_a_missing_key_says_what_is_there(state, hint):
    with pytest.raises(ValueError, match=rf"key 'a\.weight' is missing; {hint}"):
        check(plain(state), STATE, "test")


ONES = torch.ones(2)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((ONES.to(kind), rf"is of type {kind}; .*: dequantize it") for kind in (torch.int8, torch.uint8)),
        *((ONES.to(kind), rf"is of type {kind}; .*: cast it") for kind in (torch.bool, torch.complex64, torch.int64)),
        (torch._make_per_tensor_quantized_tensor(ONES.char(), 0.1, 0), r"is of type torch\.qint8; .*: dequantize it"),
        (torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), r"is of type torch\.float4"),
        (ONES.to_sparse(), r"is a tensor of torch\.sparse_coo on the device cpu; this model takes dense ones"),
        (ONES.to("meta"), r"is a tensor of torch\.strided on the device meta; this model takes dense ones with values"),
        (ONES.as_subclass(type("Packed", (torch.Tensor,), {})), r"is of type Packed; this model takes plain tensors"),
        (np.ones(2, dtype=np.int8), r"is of type torch\.int8"),
        (np.array([None, 1]), r"is of type ndarray of object; this model takes plain tensors of floating-point"),
        (None, r"is of type NoneType; this model takes plain tensors"),
        ([1.0, 1.0], r"is of type list"),
        (torch.ones(2, dtype=torch.float64) * 1e300, r"holds values that are not finite in float32"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_values_that_are_no_parameters_are_refused(value, reason):
    with pytest.raises(ValueError, match=rf"^test layout: 'a\.weight' {reason}"):
        check(plain(STATE | {"a.weight": value}), STATE, "test")


def test_a_shard_is_refused():
    """As FSDP gives it, in a world of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        state = plain({"model": STATE | {"a.weight": distribute_tensor(ONES, mesh, [Shard(0)])}})
        with pytest.raises(ValueError, match=r"'a\.weight' is a DTensor, a shard .*full_state_dict=True.*dcp_to_torch"):
            check(state, STATE, "test")
    finally:
        torch.distributed.destroy_process_group()
