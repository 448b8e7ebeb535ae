"""What every layout shares: the way out of a checkpoint, the check of its keys, and q, k, v as one map or as three."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Names of a training checkpoint, or of the part of a larger model, that hold the weights; averaged ones come first,
# because samples are made with them: names with a word of `AVERAGED` in any spelling, and with none of `OTHERS`.
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net")
AVERAGED = {"ema", "emas"}
OTHERS = {"opt", "optim", "optimizer", "optimizers", "rng", "scaler", "scheduler", "schedulers"}
# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing add to names, at any depth.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step")  # numbers that averages keep beside the weights
NATIVE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHARDED = ("DTensor", "ShardedTensor")  # of FSDP


def plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict itself: taken out of a training checkpoint, and without what wrappers add to names.

    Arrays of NumPy and small floats, such as float8, become tensors that can be computed with; other values stay as
    they are, for `check` to refuse.

    Args:
        state: a state dict, or a checkpoint that holds one under a name of `CONTAINERS` or a name of averaged weights,
            such as `ema`, `model-ema` or `modelEMA`. Where there are several, the first with averaged weights counts,
            then the order of `CONTAINERS`. Names that begin in such a way, as `model.` in the files of PyTorch
            Lightning, are chosen alike, and what stands beside them is left out.

    Raises:
        ValueError: no state dict, a part of one (a shard of ZeRO or of FSDP), averaged weights without names, or two
            names that are one without the wrappers.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"a {type(state).__name__} is no state dict; pass what model.state_dict() or torch.load gives")
    _refuse_parts(state)
    nested = [key for key, value in state.items() if isinstance(value, Mapping) and _holds_tensors(value)]
    if (container := _chosen(nested)) is not None:
        return plain(state[container])
    found: dict[str, Any] = {}
    for key, value in state.items():
        short = ".".join(part for part in str(key).split(".") if part not in WRAPPERS)
        if short in found:
            raise ValueError(f"two values for {short!r}: {key!r} differs from another key by a wrapper's name alone")
        if short not in COUNTERS:
            found[short] = _tensor(value)
    if (prefix := _chosen(key.partition(".")[0] for key in found if "." in key)) is None:
        return found
    inside = _inside(found, prefix)
    original = _inside(found, "model")
    dotless = {name.replace(".", ""): name for name in original}
    if inside.keys() <= dotless.keys() | set(COUNTERS):  # latent diffusion's average, whose names have lost their dots
        inside = original | {dotless[name]: value for name, value in inside.items() if name in dotless}
    return plain(inside)


def _inside(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands under a prefix, without it."""
    return {key.removeprefix(f"{prefix}."): value for key, value in found.items() if key.startswith(f"{prefix}.")}


def _chosen(names: Iterable[Any]) -> str | None:
    """The name of the weights to take, if there is one."""
    known = [name for name in names if isinstance(name, str)]
    averaged = (name for name in known if (words := _words(name)) & AVERAGED and not words & OTHERS)
    return next(averaged, next((name for name in CONTAINERS if name in known), None))


def _words(name: str) -> set[str]:
    """The words of a name, in small letters; they are apart where a separator stands or a capital begins one."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor or array, or a mapping or list with one in it."""
    if isinstance(value, Mapping | list):
        return any(map(_holds_tensors, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, Tensor | np.ndarray)


def _refuse_parts(state: Mapping[Any, Any]) -> None:
    """Raise ValueError for what is a part of the weights, or none of them, and say how to get the whole."""
    inner, module = state.get("optimizer_state_dict"), state.get("module")
    empty = isinstance(module, Mapping) and any(isinstance(v, Tensor) and not v.numel() for v in module.values())
    if (isinstance(inner, Mapping) and "zero_stage" in inner) or empty or ("ds_version" in state and not module):
        raise ValueError(
            "this is one shard of a DeepSpeed ZeRO checkpoint, without whole weights; consolidate it by the script "
            "that stands in its folder, `python zero_to_fp32.py FOLDER OUTPUT`, and load what that writes"
        )
    if "shadow_params" in state:
        raise ValueError(
            "the averaged weights are a list without names (shadow_params); copy them into the model by "
            "ema.copy_to(model.parameters()), and pass its state_dict()"
        )
    for key, value in state.items():
        if str(key).split(".")[-1] in ("flat_param", "_flat_param"):
            raise ValueError(
                f"{key!r} holds parameters that FSDP has joined into one, or a shard of them; save the model under "
                "FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT)"
            )
        if isinstance(value, torch.nn.Module):
            raise ValueError(f"{key!r} holds a whole {type(value).__name__}; pass its state_dict()")
    if state.keys() >= {"state", "param_groups"}:
        raise ValueError("this is the state of an optimizer, not of a model; pass the model's state dict")


def _tensor(value: Any) -> Any:
    """A tensor to compute with, where a value can become one."""
    try:
        if isinstance(value, np.ndarray | np.generic):
            return torch.tensor(value)
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype not in NATIVE:
            return value.float()
    except (TypeError, ValueError, RuntimeError):  # of a type that PyTorch lacks, or cannot cast
        pass
    return value


def check(found: Mapping[str, Any], wanted: Mapping[str, Tensor], layout: str) -> None:
    """Compare the keys, types and shapes of a state dict with those of a model.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key, or one whose value is no tensor of
            floating-point numbers that float32 can hold.
    """
    for key in wanted:
        if key not in found:
            longer = next((other for other in found if other.endswith(f".{key}")), None)
            hint = "; the file has " + (
                f"{longer!r}: take {longer.removesuffix(key)!r} off its names" if longer else _listed(list(found))
            )
            raise ValueError(f"not these weights in the {layout} layout: key {key!r} is missing{hint}")
    for key in found:
        if key not in wanted:
            raise ValueError(f"not these weights in the {layout} layout: key {key!r} is unexpected")
    for key, value in wanted.items():
        if (reason := _unfit(found[key])) is not None:
            raise ValueError(f"{layout} layout: {key!r} {reason}")
        if found[key].shape != value.shape:
            raise ValueError(
                f"{layout} layout: {key!r} has shape {tuple(found[key].shape)}, this model needs {tuple(value.shape)}"
            )
        if not found[key].float().isfinite().all():
            raise ValueError(
                f"{layout} layout: {key!r} holds values that are not finite in float32; the file is damaged"
            )


def _unfit(value: Any) -> str | None:
    """Why a value cannot be a parameter, if so, and what would be right."""
    kind = type(value).__name__
    if kind in SHARDED:
        return (
            f"is a {kind}, a shard of FSDP; gather the weights by torch.distributed.checkpoint.state_dict."
            "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), or turn a folder of shards "
            "into a file by `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`"
        )
    if type(value) not in (Tensor, torch.nn.Parameter):  # a subclass may hold quantized numbers, and say float32
        what = f"{kind} of {value.dtype}" if isinstance(value, np.ndarray) else kind
        return f"is of type {what}; this model takes plain tensors of floating-point numbers"
    if value.layout is not torch.strided or value.is_meta:
        return f"is a tensor of {value.layout} on the device {value.device}; this model takes dense ones with values"
    if value.dtype not in NATIVE:
        advice = "dequantize it" if value.is_quantized or value.dtype in (torch.int8, torch.uint8) else "cast it"
        return f"is of type {value.dtype}; this model takes floating-point numbers: {advice} first"
    return None


def _listed(names: list[str], most: int = 3) -> str:
    """The first names of a file."""
    return ", ".join(map(repr, names[:most])) + (" …" if len(names) > most else "") if names else "no key"


def require(described: Any, *names: str) -> None:
    """Raise ValueError unless a `config.json` holds all these names."""
    if not isinstance(described, Mapping):
        raise ValueError(f"the config is a {type(described).__name__}, not a table of names and values")
    if missing := [name for name in names if name not in described]:
        raise ValueError(f"the config lacks {', '.join(missing)}")


def split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put three keys, `to_q`, `to_k` and `to_v`, in the place of each `to_qkv`."""
    apart = {}
    for key, value in state.items():
        if ".to_qkv." in key:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                apart[key.replace(".to_qkv.", f".to_{letter}.")] = part
        else:
            apart[key] = value
    return apart


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_qkv`."""
    joined = {}
    for key, value in state.items():
        if ".to_q." in key:
            parts = [state[key.replace(".to_q.", f".to_{letter}.")] for letter in "qkv"]
            joined[key.replace(".to_q.", ".to_qkv.")] = torch.cat(parts)
        elif ".to_k." not in key and ".to_v." not in key:
            joined[key] = value
    return joined


def read_folder(
    folder: str | Path, fields: Mapping[str, str], defaults: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model of diffusers as it stands on a disk: `config.json`, and weights in a file beside it.

    Args:
        folder: holds `diffusion_pytorch_model.safetensors`, or the older `.bin`, of which only tensors are read.
        fields: which of our fields has which name in the config.
        defaults: values of names that a config may lack.

    Returns:
        These fields of ours, and the state dict.

    Raises:
        ValueError: a file or a field is missing, or a file is damaged.
    """
    folder = Path(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        require(config, *(name for name in fields.values() if name not in (defaults or {})))
        config = {**(defaults or {}), **config}
        given = {ours: config[theirs] for ours, theirs in fields.items()}
        older = weights.with_suffix(".bin")
        if older.exists() and not weights.exists():
            return given, torch.load(older, map_location="cpu", weights_only=True)
        return given, load_file(weights)
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"{folder} holds no such model in diffusers' layout: {error}") from error
