"""A model on several processes: how they meet, and how each holds all of its parameters or a shard of them.

Without `torchrun` a process is alone, and everything here works all the same.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ditbook.training.loop import Batch, Context, Loss

SHARDS = ("ddp", "fsdp")
ByTime = Callable[[Any, Batch, torch.Generator], Tensor | None]
PRECISIONS = ("float32", "bfloat16")

LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")  # in errors of gloo and NCCL
AGAIN = "start all of them again, and they go on from the last checkpoint"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model lies on the processes and is computed there.

    Raises:
        ValueError: no such way to shard or precision.
    """

    shard: str = "ddp"  # every process has all parameters; or "fsdp": each has a shard of every one
    precision: str = "float32"  # of matrix products; parameters, reductions and average stay float32
    compile: bool = False  # each block
    recompute: bool = False  # keep only the inputs of each block for the backward pass

    def __post_init__(self) -> None:
        if self.shard not in SHARDS:
            raise ValueError(f"no way to shard {self.shard!r}; there are {' and '.join(SHARDS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"no precision {self.precision!r}; there are {' and '.join(PRECISIONS)}")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen by one of them."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup  # on the CPU, for what the hosts tell one another

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def gather(self, value: object) -> list:
        """The value of each process, by rank. All of them call it."""
        values: list[object] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that `torchrun` started, or be alone; leave them at the end.

    Args:
        device: "cpu", or "cuda" for the GPU of this process's local rank.

    Raises:
        ValueError: no such device here, or the processes cannot meet at their address.
        RuntimeError: while this one works, another process ends.
    """
    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here: {error}") from error
    if where.type == "cuda":
        torch.cuda.set_device(where)
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"  # a gloo group beside NCCL's: for the hosts
    try:
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    except (dist.DistNetworkError, dist.DistStoreError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise ValueError(f"the processes cannot meet at {address}; is the port in use? ({error})") from error
    try:
        yield World(dist.get_rank(), dist.get_world_size(), where, dist.new_group(backend="gloo"))
    except RuntimeError as error:
        if any(sign in str(error) for sign in LOST):
            raise RuntimeError(f"another process of the run has ended; {AGAIN}") from error
        raise
    finally:
        dist.destroy_process_group()


class Objective(nn.Module):
    """The loss as a module: whatever it calls of the model, all parameters are there during its forward pass."""

    def __init__(self, model: nn.Module, loss: Loss, by_time: ByTime | None = None) -> None:
        super().__init__()
        self.model, self.loss, self.by_time = model, loss, by_time

    def forward(self, batch: Batch, context: Context) -> Tensor:
        """The loss of a batch, a scalar."""
        return self.loss(self.model, batch, context)

    @torch.no_grad()
    def times(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """The loss of a batch in each quarter of the time, (4,), if the task has it."""
        return self.by_time(self.model, batch, generator) if self.by_time else None


def blocks(model: nn.Module) -> list[nn.Module]:
    """What is sharded, compiled and recomputed one by one: the blocks of a Transformer; none of other models."""
    lists = (getattr(model, name, None) for name in ("blocks", "layers"))
    return [block for found in lists if isinstance(found, nn.ModuleList) for block in found]


def wrapped(model: nn.Module, loss: Loss, layout: Layout, world: World, by_time: ByTime | None = None) -> nn.Module:
    """The module whose forward pass is the loss, and whose backward pass averages gradients over the processes.

    The order is that in which no graph breaks: recompute, compile, shard. The names of the parameters stay.
    """
    for block in blocks(model):
        if layout.recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        if layout.compile:
            block.compile()
    objective = Objective(model, loss, by_time)
    place(objective, model, layout, world)
    if layout.shard == "ddp":
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    register_fsdp_forward_method(objective, "times")
    return objective


def place(root: nn.Module, model: nn.Module, layout: Layout, world: World) -> None:
    """Move `root`, which is or holds a model, to the device of this process; or this process's shard of each parameter.

    In bfloat16 the blocks are gathered as such; what embeds times and images stays float32, under autocast.
    """
    if layout.shard == "ddp":
        root.to(world.device)
        return
    mesh = init_device_mesh(world.device.type, (world.size,))
    dtype = torch.bfloat16 if layout.precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    forced = must_sum(world)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(forced)


def must_sum(world: World) -> bool:
    """Whether FSDP must divide by itself, because the library under it sums gradients where it should average them.

    Older releases of gloo do so without a word (pytorch#162338), and Adam hides it.

    Raises:
        RuntimeError: gradients are wrong either way.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    for forced in (False, True):
        probe = nn.Linear(1, world.size, bias=False)
        fully_shard(probe, mesh=mesh).set_force_sum_reduction_for_comms(forced)
        probe(torch.full((1, 1), float(world.rank + 1), device=world.device)).sum().backward()
        assert probe.weight.grad is not None
        if (whole(probe.weight.grad) == (world.size + 1) / 2).all():
            return forced
    raise RuntimeError("gradients are not averaged over the processes: this PyTorch cannot shard here, use --shard ddp")


def last_only(objective: nn.Module, last: bool) -> AbstractContextManager:
    """A context for the backward passes of a step, of which only the last one communicates."""
    if isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(last)
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) and not last else nullcontext()


def times(objective: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor | None:
    """`Objective.times`, the mean over the processes. All of them call it."""
    inner: Any = objective.module if isinstance(objective, DistributedDataParallel) else objective
    found = inner.times(batch, generator)
    if isinstance(objective, FSDPModule):
        objective.reshard()  # which the backward pass does otherwise
    if found is not None:
        dist.all_reduce(found)
        found /= dist.get_world_size()
    return found


def whole(tensor: Tensor) -> Tensor:
    """All shards of a tensor put together, on every process. All of them call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: nn.Module) -> Batch:
    """The state of a model on the CPU, all shards put together. All processes call it."""
    return {name: whole(tensor).cpu() for name, tensor in model.state_dict().items()}
