"""What a model costs, counted by running it: multiply–adds, normalized numbers, parameters.

The formulas stand beside the configs, as `DiTConfig.complexity`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ditbook.layers.complexity import Complexity

# kernels of scaled_dot_product_attention that PyTorch's own counter passes over: of the CPU, of MPS, of plug-ins
FUSED = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_attention_math_for_mps,
    torch.ops.aten._scaled_dot_product_fused_attention_overrideable,
)
PRODUCTS = "attention", "transformer_encoder", "rnn", "lstm_mps"  # in names of kernels with matrix products inside


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of operations, made to see attention on every device."""
    return FlopCounterMode(display=False, custom_mapping=dict.fromkeys(FUSED, _attention_flops))


def _attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *rest: object, **named: object) -> int:
    return sdpa_flop_count(q, k, v)


class _Guard(TorchDispatchMode):
    """Refuses the kernels with matrix products inside that a counter does not know."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.known = counter.flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        if func.overloadpacket not in self.known and any(part in name for part in PRODUCTS):
            raise NotImplementedError(f"the products inside {name} cannot be counted; count on the meta device")
        return func(*args, **(kwargs or {}))


class _NormCounter(TorchDispatchMode):
    """Adds up the numbers that every LayerNorm normalizes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_layer_norm.default:
            self.numbers += args[0].numel()
        return func(*args, **(kwargs or {}))


def count_macs(model: Callable[..., object], *inputs: Tensor, **kwargs: Any) -> int:
    """Multiply–adds of all products of two matrices in one call of `model`, those of attention included.

    Raises:
        NotImplementedError: the device hides products in a kernel of its own, as of an LSTM on a CPU.
    """
    counter = flop_counter()
    with torch.no_grad(), _Guard(counter), counter:
        model(*inputs, **kwargs)
    return counter.get_total_flops() // 2  # a multiply–add is two flops


def measure(model: nn.Module, *inputs: Tensor, **kwargs: Tensor) -> Complexity:
    """Count what one call of `model` costs and what it stores.

    Model and inputs may live on the meta device, where no number is computed or stored.

    >>> with torch.device("meta"):
    ...     measure(nn.Linear(5, 7), torch.empty(1, 5)).macs
    35
    """
    norms = _NormCounter()
    with norms:
        macs = count_macs(model, *inputs, **kwargs)
    return Complexity(
        macs=macs,
        norms=norms.numbers,
        trainable=sum(p.numel() for p in model.parameters()),
        fixed=sum(buffer.numel() for buffer in model.buffers()),
    )
