"""Time one training step of DiT-S/4 here and in diffusers, in turn on the same batch: make benchmark

Batch 16 of 4×32×32, forward and backward and AdamW; float32 and bfloat16 autocast, plain and compiled. Each time is
the median of rounds, beside its ratio to diffusers in the same mode and, as a share, the rate of its matrix
products against that of one large product in the same type. Nothing is asserted: the numbers belong to the machine.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from diffusers import DiTTransformer2DModel

from ditbook.metrics import complexity
from ditbook.models.dit import DiT, named

BATCH, ROUNDS, SIDE = 16, 7, 2048
CONFIG = named("DiT-S/4")
FLOPS = 6 * complexity.formula(CONFIG).macs * BATCH  # two a multiply-add; the backward pass costs twice the forward


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def theirs() -> torch.nn.Module:
    return DiTTransformer2DModel(
        num_attention_heads=CONFIG.heads,
        attention_head_dim=CONFIG.width // CONFIG.heads,
        in_channels=CONFIG.channels,
        out_channels=CONFIG.out_channels,
        num_layers=CONFIG.depth,
        patch_size=CONFIG.patch,
        sample_size=CONFIG.size,
        num_embeds_ada_norm=CONFIG.num_classes,
    )


def training_step(model: torch.nn.Module, dtype: torch.dtype, forward: Callable, batch: tuple) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = forward(*batch).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    torch.manual_seed(0)
    batch = torch.randn(BATCH, 4, 32, 32), torch.randint(1000, (BATCH,)), torch.randint(1000, (BATCH,))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; median of {ROUNDS} rounds")
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(SIDE, SIDE, dtype=dtype)
        for compiled in (False, True):
            nets = [DiT(CONFIG), theirs()]
            run = [torch.compile(net) if compiled else net for net in nets]
            calls = [lambda x, t, y, f=run[0]: f(x, t, y), lambda x, t, y, f=run[1]: f(x, t, class_labels=y).sample]
            steps = [training_step(net, dtype, call, batch) for net, call in zip(nets, calls, strict=True)]
            for warm in (*steps, *steps):
                warm()
            rounds = [[seconds(step) for step in steps] + [seconds(partial(torch.mm, a, a))] for _ in range(ROUNDS)]
            ours, other, product = (statistics.median(column) for column in zip(*rounds, strict=True))
            rate = FLOPS / (2 * SIDE**3 / product)
            mode = f"{str(dtype).removeprefix('torch.'):9s}{'compiled' if compiled else 'plain':9s}"
            print(f"{mode} ours {ours:.3f} s ({rate / ours:.2f} of the product's rate), diffusers {other:.3f} s, "
                  f"ratio {ours / other:.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
