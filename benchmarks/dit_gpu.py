"""Time training steps of DiT-XL/2 on latents of 256×256 images on one GPU, here and in diffusers: make benchmark

The same engine trains both models: loss with a variance head, bfloat16, AdamW, clipping, average of the parameters. A
batch is the largest power of two that fits. Images a second, the utilization of the GPU's peak rate without sparsity
where the package knows it, and the memory at most. Nothing is asserted: the numbers belong to the machine. Without a
GPU both models take a step on the device meta, which shows that they run and no more. The model of diffusers calls a
part of its first block from outside, which FSDP2 cannot gather: it is timed whole.
"""

import gc
import time
from dataclasses import replace

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from ditbook.convert.dit import diffusers_config
from ditbook.models.dit import DiT, DiTConfig
from ditbook.training import recipes
from ditbook.training.budget import budget
from ditbook.training.distributed import Layout, World, joined
from ditbook.training.engine import Engine
from ditbook.training.loop import Batch, Stepper
from ditbook.training.watch import peak_of

NAME, LARGEST, WARM, STEPS = "DiT-XL/2", 512, 5, 20
RECIPE, CONFIG = recipes.load(NAME), DiTConfig.from_name(NAME)
FLOPS = budget(RECIPE, Layout()).flops / RECIPE.training.batch_size  # of an image


class Theirs(nn.Module):
    """The model of diffusers, called like ours."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.net = DiTTransformer2DModel(**diffusers_config(config))

    @property
    def blocks(self) -> nn.ModuleList:
        return self.net.transformer_blocks

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.net(x, t, class_labels=y).sample

    def null_condition(self, y: Tensor) -> dict[str, Tensor]:
        return {"y": torch.full_like(y, self.config.num_classes)}


MODELS = {"ours": DiT, "diffusers": Theirs}
LAYOUTS = {
    "plain": Layout(precision="bfloat16"),
    "compiled": Layout(precision="bfloat16", compile=True),
    "compiled, FSDP2": Layout(precision="bfloat16", compile=True, shard="fsdp"),
}


def rows(count: int, device: str) -> Batch:
    """Latents of noise."""
    two = RECIPE.task.example(DiT(DiTConfig(size=32, width=16, depth=1, heads=1)))
    batch = {name: torch.rand(count, *tensor.shape[1:], device=device) for name, tensor in two.items()}
    return batch | {"label": torch.randint(1000, (count,), device=device)}


def measured(name: str, layout: Layout, world: World, count: int) -> tuple[float, float]:
    """Seconds of a step of `count` rows, and GB at most."""
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    config = replace(RECIPE.training, batch_size=count)
    engine, batch = Engine(MODELS[name](CONFIG), RECIPE.task.loss, config, layout, world, 1), rows(count, "cuda")
    for step in range(WARM + STEPS):
        if step == WARM:
            torch.cuda.synchronize()
            start = time.perf_counter()
        engine.step(batch)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS, torch.cuda.max_memory_allocated() / 1e9


def on_gpu() -> None:
    with joined("cuda") as world:
        peak = peak_of(world.device, "bfloat16")
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}; {NAME}, bfloat16, mean of {STEPS} steps")
        print(f"{'':28s} batch  images per second  utilization  GB")
        for name in MODELS:
            for mode, layout in LAYOUTS.items():
                if name == "diffusers" and layout.shard == "fsdp":
                    continue
                count, found = LARGEST, None
                while found is None and count:
                    try:
                        found = measured(name, layout, world, count)
                    except torch.cuda.OutOfMemoryError:
                        count //= 2
                    torch.compiler.reset()
                    gc.collect()
                    torch.cuda.empty_cache()
                if found:
                    used = f"{count * FLOPS / found[0] / peak:.1%}" if peak else "unknown"
                    print(
                        f"{name + ', ' + mode:28s} {count:5d} {count / found[0]:18.1f} {used:>12s} {found[1]:3.0f}",
                        flush=True,
                    )


def on_meta() -> None:
    print(f"no GPU is at hand: nothing is timed, and {NAME} takes a step on the device meta")
    for name, build in MODELS.items():
        with torch.device("meta"):
            model = build(CONFIG)
        stepper = Stepper(model, RECIPE.task.loss, RECIPE.training)
        stepper.step(rows(2, "meta"))
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {stepper.count} step")
    print(f"{FLOPS / 1e9:.1f} GFLOP an image: half of an H100's 989 TFLOP/s makes {0.5 * 989e12 / FLOPS:.0f} a second")


if __name__ == "__main__":
    on_gpu() if torch.cuda.is_available() else on_meta()
