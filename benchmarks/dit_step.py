"""Time one training step of DiT-S/4 here and in diffusers, in turn on the same batch: make benchmark

Batch 16 of 4×32×32, forward and backward and AdamW; float32 and bfloat16 autocast, plain and compiled. Each time is
the median of rounds, beside its ratios to diffusers and, as a share, the rate of its matrix products against that of
one large product in the same type. The products of our step are also timed alone, on the same operands: their ratios
are the floor below which no model that calls the same matrix library can come. Where the rest of our step goes,
PyTorch's profiler says. Nothing is asserted: the numbers belong to the machine.
"""

import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from diffusers import DiTTransformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode

from ditbook.convert.dit import diffusers_config
from ditbook.models.dit import DiT, DiTConfig

BATCH, ROUNDS, SIDE = 16, 15, 2048
CONFIG = DiTConfig.from_name("DiT-S/4")
PARTS = {  # of a step, by what the names of its kernels begin with
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "mkl::", "mkldnn::", "onednn::"),
    "attention": ("aten::_scaled_dot_product", "aten::scaled_dot_product"),
    "AdamW": ("aten::_fused_adamw",),
}
FLOPS = 6 * CONFIG.complexity().macs * BATCH  # two a multiply-add; the backward pass costs twice the forward


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def training_step(model: torch.nn.Module, dtype: torch.dtype, forward: Callable, batch: tuple) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = forward(*batch).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


class Products(TorchDispatchMode):
    """Keeps every matrix product of what runs under it, to be run again alone."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.calls.append(partial(func, *(arg.detach() for arg in args), **(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def again(self) -> None:
        for call in self.calls:
            call()


def shares(step: Callable[[], object], count: int = 5) -> dict[str, float]:
    """Fractions of the time of a step by `PARTS`, and of all else."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(count):
            step()
    spent = dict.fromkeys((*PARTS, "all else"), 0.0)
    for event in profile.key_averages():
        part = next((name for name, starts in PARTS.items() if event.key.startswith(starts)), "all else")
        spent[part] += event.self_cpu_time_total
    return {part: value / sum(spent.values()) for part, value in spent.items()}


def main() -> None:
    torch.manual_seed(0)
    random.seed(0)
    batch = torch.randn(BATCH, 4, 32, 32), torch.randint(1000, (BATCH,)), torch.randint(1000, (BATCH,))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {ROUNDS} rounds")
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(SIDE, SIDE, dtype=dtype)
        timed = {}
        for mode, wrap in (("plain", lambda net: net), ("compiled", torch.compile)):
            ours, other = DiT(CONFIG), DiTTransformer2DModel(**diffusers_config(CONFIG))
            call, their_call = wrap(ours), wrap(other)
            timed[f"ours, {mode}"] = training_step(ours, dtype, call, batch)
            timed[f"diffusers, {mode}"] = training_step(
                other, dtype, lambda x, t, y, call=their_call: call(x, t, class_labels=y).sample, batch
            )
        for step in (*timed.values(), *timed.values()):
            step()
        with Products() as products:
            timed["ours, plain"]()
        timed["matrix products alone"] = products.again
        timed["one large product"] = partial(torch.mm, a, a)
        rounds = {name: [] for name in timed}
        for _ in range(ROUNDS):
            for name in random.sample(list(timed), len(timed)):  # no one always runs after the same other
                rounds[name].append(seconds(timed[name]))
        taken = {name: statistics.median(times) for name, times in rounds.items()}
        rate = 2 * SIDE**3 / taken.pop("one large product")
        print(f"\n{str(dtype).removeprefix('torch.'):22s} seconds  of a product's rate   to diffusers plain, compiled")
        for name, median in taken.items():
            plain, compiled = (median / taken[f"diffusers, {mode}"] for mode in ("plain", "compiled"))
            print(f"{name:22s} {median:7.3f} {FLOPS / median / rate:20.2f} {plain:22.2f} {compiled:9.2f}", flush=True)
        found = shares(timed["ours, compiled"])
        print("of ours, compiled:", ", ".join(f"{part} {share:.0%}" for part, share in found.items()), flush=True)


if __name__ == "__main__":
    main()
