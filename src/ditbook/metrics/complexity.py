"""What a model costs, counted by running it: multiply–adds, normalized numbers, parameters.

The formulas stand beside the configs, as `DiTConfig.complexity`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ditbook.layers.complexity import Complexity


class _NormCounter(TorchDispatchMode):
    """Adds up the numbers that every LayerNorm normalizes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_layer_norm.default:
            self.numbers += args[0].numel()
        return func(*args, **(kwargs or {}))


def count_macs(model: Callable[..., object], *inputs: Tensor, **kwargs: Tensor) -> int:
    """Multiply–adds of all matrix products in one call of `model`, by PyTorch's own counter."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
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
