"""What a recipe will cost before it is run: parameters, memory of a device by part, operations of a step, days.

The model is run once on tensors without numbers, so a large one costs nothing here. A GB is 10⁹ bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ditbook import weights
from ditbook.metrics.complexity import flop_counter
from ditbook.training.distributed import Layout, blocks
from ditbook.training.loop import Context
from ditbook.training.recipes import Recipe

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
UTILIZATION = 0.4  # of the peak rate: what a well-kept training reaches


@dataclass(frozen=True)
class Card:
    """A GPU: peak rates of matrix products without sparsity in 10¹² operations a second, memory in GB, and the source.

    A multiply–add counts as two operations.
    """

    bfloat16: float
    float32: float
    memory: float
    source: str


CARDS = {
    "RTX-3090": Card(71, 35.6, 24, "NVIDIA Ampere GA102 whitepaper, appendix A"),
    "RTX-4090": Card(165.2, 82.6, 24, "NVIDIA Ada GPU architecture whitepaper, appendix A"),
    "L4": Card(121, 30.3, 24, "NVIDIA L4 datasheet, half of the rate with sparsity"),
    "A100": Card(312, 19.5, 80, "NVIDIA A100 80GB datasheet, SXM"),
    "H100": Card(989, 67, 80, "NVIDIA H100 datasheet, SXM, half of the rate with sparsity"),
    "H200": Card(989, 67, 141, "NVIDIA H200 datasheet, SXM, half of the rate with sparsity"),
    "B200": Card(2250, 75, 180, "NVIDIA HGX B200 datasheet, an eighth of eight, half of the rate with sparsity"),
}


@dataclass(frozen=True)
class Forward:
    """One forward pass of a loss, for one row: operations, and bytes that are kept for the backward pass."""

    flops: float
    kept: float  # in all
    kept_in_blocks: float
    kept_in_block: float  # the largest
    inputs: float  # of all blocks


@dataclass(frozen=True)
class Budget:
    """The cost of a run."""

    trainable: int
    fixed: int  # numbers that are stored and not trained
    flops: float  # of a step of all devices
    memory: dict[str, float]  # bytes on each device, by part
    steps: int

    @property
    def total(self) -> float:
        """Bytes on each device."""
        return sum(self.memory.values())

    def days(self, card: Card, count: int, precision: str) -> float:
        """Of the whole run on `count` cards, at `UTILIZATION` of their peak rate."""
        rate = count * getattr(card, precision) * 1e12 * UTILIZATION
        return self.steps * self.flops / rate / 86_400


def budget(recipe: Recipe, layout: Layout, count: int = 1, parts: int | None = None) -> Budget:
    """Count what a recipe costs.

    Args:
        recipe: what is trained.
        layout: how the model lies on the devices.
        count: of devices.
        parts: of a batch; by default one for each device.

    Raises:
        ValueError: no device, or the batch cannot be split so.
    """
    parts, rows = parts or count, recipe.training.batch_size
    if count < 1:
        raise ValueError(f"the number of devices must be positive, got {count}")
    if parts % count or rows % parts:
        raise ValueError(f"a batch of {rows} rows in {parts} parts cannot be shared by {count} devices")
    with torch.device("meta"):
        model = weights.build(recipe.table["family"], recipe.table["model"])
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks(model)]
    trainable = sum(p.numel() for p in model.parameters())
    fixed = sum(buffer.numel() for buffer in model.buffers())
    one = forward(model, recipe, layout.precision)
    shards = count if layout.shard == "fsdp" else 1
    activations = one.kept * rows / parts
    if layout.recompute:
        activations += (one.inputs + one.kept_in_block - one.kept_in_blocks) * rows / parts
    memory = {name: each * trainable / shards for name, each in EACH.items()} | {"activations": activations}
    if layout.shard == "fsdp":  # this block and the next, and what is in none
        width = 2 if layout.precision == "bfloat16" else 4
        memory["gathered parameters"] = 2 * width * max(sizes, default=0) + 4 * (trainable - sum(sizes))
        if parts > count:  # whole on each device until the last part, after which alone they are averaged
            memory["gradients"] = 4 * trainable
    elif layout.precision == "bfloat16":
        memory["bfloat16 copies"] = 2 * trainable
    return Budget(trainable, fixed, 3 * one.flops * rows, memory, recipe.training.steps)


EACH = {"parameters": 4, "gradients": 4, "Adam's moments": 8, "average": 4}  # bytes of one parameter, float32


def forward(model: nn.Module, recipe: Recipe, precision: str) -> Forward:
    """Run the loss of a recipe once, with a model on the meta device, and count.

    The backward pass costs twice the operations of the forward pass; what is computed anew does not count.
    """
    batch = {name: tensor.to("meta") for name, tensor in recipe.task.example(model).items()}
    rows, saved = len(next(iter(batch.values()))), Saved(model)
    counter = flop_counter()
    with counter, saved.counting(), _Kernels(getattr(torch, precision), saved.seen):
        recipe.task.loss(model, batch, Context(0, torch.Generator()))
    each = saved.blocks
    totals = counter.get_total_flops(), saved.bytes, sum(each), max(each, default=0), saved.inputs
    return Forward(*(total / rows for total in totals))


class _Kernels(TorchFunctionMode):
    """On the meta device: products in the given type, as under autocast, and attention that keeps no T×T matrix."""

    def __init__(self, dtype: torch.dtype, seen: dict[int, Tensor]) -> None:
        super().__init__()
        self.dtype, self.seen = dtype, seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.linear, F.conv2d, torch.matmul, Tensor.matmul):
            args, kwargs = tree_map_only(Tensor, self._cast, (args, kwargs))
        elif func is F.scaled_dot_product_attention and not kwargs.get("is_causal") and kwargs.get("attn_mask") is None:
            q, k, v = (self._cast(tensor) for tensor in args[:3])
            return ATTENTION(q, k, v)[0]
        return func(*args, **kwargs)

    def _cast(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        cast = tensor.to(self.dtype)
        if isinstance(tensor, nn.Parameter):  # the copy of a parameter is no activation
            self.seen[_storage(cast)] = cast
        return cast


class Saved:
    """Counts the bytes that a forward pass keeps for the backward pass, in all and in each block."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.bytes, self.inputs = model, 0, 0
        self.blocks: list[int] = []
        self.seen: dict[int, Tensor] = {_storage(parameter): parameter for parameter in model.parameters()}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is computed inside."""
        hooks = []
        for block in blocks(self.model):
            hooks.append(block.register_forward_pre_hook(self._enter))
            hooks.append(block.register_forward_hook(self._leave))
        with saved_tensors_hooks(self._save, lambda tensor: tensor):
            yield
        for hook in hooks:
            hook.remove()

    def _save(self, tensor: Tensor) -> Tensor:
        """Count a tensor, once for each storage."""
        if _storage(tensor) not in self.seen:
            self.seen[_storage(tensor)] = tensor
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor

    def _enter(self, block: nn.Module, inputs: tuple) -> None:
        self.inputs += sum(tensor.nbytes for tensor in inputs if isinstance(tensor, Tensor))
        self.start = self.bytes

    def _leave(self, block: nn.Module, inputs: tuple, output: object) -> None:
        self.blocks.append(self.bytes - self.start)


def _storage(tensor: Tensor) -> int:
    """What tells storages on the meta device apart, while they live."""
    return tensor.untyped_storage()._cdata


def report(recipe: Recipe, layout: Layout, name: str, count: int = 1, parts: int | None = None) -> str:
    """The budget of a recipe on `count` cards as text.

    Raises:
        ValueError: no such card, or the batch cannot be split so.
    """
    if name not in CARDS:
        raise ValueError(f"no card {name!r}; there are {', '.join(CARDS)}")
    card, found = CARDS[name], budget(recipe, layout, count, parts)
    rows = recipe.training.batch_size
    fits = "fits" if found.total < 0.9 * card.memory * 1e9 else "does not fit: more parts, --recompute or --shard fsdp"
    lines = [
        f"parameters: {found.trainable:,}, and {found.fixed:,} numbers that are not trained",
        f"memory of each of {count} {name}, {layout.shard}, {rows // (parts or count)} rows at once:",
        *(f"  {part:20s} {size / 1e9:9.3f} GB" for part, size in found.memory.items()),
        f"  {'together':20s} {found.total / 1e9:9.3f} of {card.memory:g} GB: {fits}",
        f"a step of {rows} rows: {found.flops / 1e12:.4g} TFLOP, {found.flops / rows / 1e9:.4g} GFLOP a row",
        f"{found.steps:,} steps: {_time(found.days(card, count, layout.precision))} at {UTILIZATION:.0%} of "
        f"{count} × {getattr(card, layout.precision):g} TFLOP/s, {layout.precision}",
        f"the card: {card.source}",
    ]
    return "\n".join(lines)


def _time(days: float) -> str:
    """A duration with two digits in the unit that suits it."""
    units = {"days": 1.0, "hours": 1 / 24, "minutes": 1 / 1440, "seconds": 1 / 86_400}
    unit = next((unit for unit, length in units.items() if days >= length), "seconds")
    value = days / units[unit]
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
