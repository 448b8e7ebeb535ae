"""What each of two processes does for the tests of the engine: `python two_processes.py SCENE FOLDER`."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from ditbook.diffusion import losses, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.models.dit import DiT, DiTConfig
from ditbook.training import distributed, engine, launch
from ditbook.training.distributed import Layout, joined
from ditbook.training.engine import Engine
from ditbook.training.loop import DivergedError, TrainConfig
from ditbook.training.snapshots import Snapshots
from ditbook.training.tasks.digits import Digits

# 41 rows in batches of 8: epochs end within batches. The table of 5 classes makes uneven shards.
MODEL = DiTConfig(size=6, channels=1, patch=3, width=20, depth=2, heads=2, num_classes=4, learn_sigma=False)
CONFIG = TrainConfig(steps=6, batch_size=8, warmup_steps=0, learning_rate=0.01, seed=3, ema_decay=0.9, grad_clip=0.5)
DIFFUSION = GaussianDiffusion(schedules.linear(1000))
RECIPE = """
description = "Tiny"
family = "dit"
task = "digits"
data = "digits"
dtype = "float32"
model = {size = 8, channels = 1, patch = 4, width = 16, depth = 1, heads = 2, num_classes = 10}
training = {steps = 60, batch_size = 8, ema_decay = 0.9}
"""


def start(scene, folder, **environment):
    """Two processes of a scene, that meet; what they write is kept."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"} | environment
    command = [sys.executable, __file__, scene, str(folder)]
    return [
        subprocess.Popen(command, env=settings | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]


def data():
    image = torch.randn(41, 1, 6, 6, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return {"image": image, "label": torch.arange(41) % 4, "row": torch.arange(41)}


def model():
    torch.manual_seed(0)
    return DiT(MODEL)


def loss(model, batch, context):
    return losses.denoising_loss(model, DIFFUSION, batch["image"], context.generator, dropout=0.1, y=batch["label"])


def run(world, layout, *, config=CONFIG, parts=2, loss=loss, snapshots=None, resume=False):
    """Train; return what the tests compare: losses, gradients of the last step, all states put together."""
    made = Engine(model(), loss, config, layout, world, parts)
    if resume:
        made.resume(snapshots, snapshots.newest())
    engine.train(made, data(), snapshots or Nowhere())
    return {"losses": made.losses, "gradients": gradients(made), **states(made)}


class Nowhere:
    """Keeps no checkpoint."""

    folder = "nowhere"

    def save(self, *args):
        pass

    def poll(self, finish=False):
        pass


def gradients(made):
    return {name: distributed.whole(parameter.grad) for name, parameter in made.model.named_parameters()}


def states(made):
    optimizer = [
        distributed.whole(made.optimizer.state[parameter][key]).clone()
        for parameter in made.model.parameters()
        for key in ("step", "exp_avg", "exp_avg_sq")
    ]
    clone = {name: value.clone() for name, value in distributed.whole_state(made.model).items()}
    ema = {name: value.clone() for name, value in distributed.whole_state(made.ema.model).items()}
    return {"model": clone, "ema": ema, "optimizer": optimizer}


def equal_to_one(world, folder):
    """Every layout, trained for six steps, and what each process drew."""
    drawn = []

    def noting(model, batch, context):
        drawn.append((context.step, batch["row"].tolist(), context.generator.initial_seed() % 2**62))
        return loss(model, batch, context)

    found = {"ddp": run(world, Layout(), loss=noting), "drawn": drawn}
    found["fsdp"] = run(world, Layout(shard="fsdp"))
    found["four parts"] = run(world, Layout(shard="fsdp"), parts=4)
    found["bfloat16"] = run(world, Layout(shard="fsdp", precision="bfloat16", recompute=True))
    found["dtypes"] = sorted({str(g.dtype) for g in found["bfloat16"]["gradients"].values()})
    return found


def poisoned(world, folder):
    """A loss that is no number on the second process alone."""

    def poison(model, batch, context):
        bad = context.step == 3 and world.rank == 1
        return loss(model, batch, context) * (float("nan") if bad else 1)

    made = Engine(model(), poison, CONFIG, Layout(shard="fsdp"), world, 2)
    try:
        engine.train(made, data(), Nowhere())
    except DivergedError as error:
        three = dataclasses.replace(CONFIG, steps=3)
        return {"error": str(error), "left": states(made), "good": run(world, Layout(shard="fsdp"), config=three)}


def resumed(world, folder):
    """Stopped after three steps and gone on; the weights are changed while the checkpoint is written."""
    layout, snapshots = Layout(shard="fsdp"), Snapshots(folder / "resumed", world)
    first = Engine(model(), loss, dataclasses.replace(CONFIG, steps=3), layout, world, 2)
    engine.train(first, data(), Nowhere())
    snapshots.save(3, first.state(), first.about())
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.zero_()
    snapshots.poll(finish=True)
    return run(world, layout, snapshots=snapshots, resume=True)


def engines(folder):
    with joined("cpu") as world:
        found = {scene.__name__: scene(world, folder) for scene in (equal_to_one, poisoned, resumed)}
        torch.save(found, folder / f"found{world.rank}.pt")


def recipe(folder):
    """Train the recipe of that folder, with checkpoints every three steps, and measure nothing."""
    Digits.evaluate = lambda self, model: {}
    (folder / "tiny.toml").write_text(RECIPE)
    out = folder / "tiny.safetensors"
    launch.train(str(folder / "tiny.toml"), Layout(shard="fsdp"), out=out, runs=folder / "runs", save_every=3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"engines": engines, "recipe": recipe}[sys.argv[1]](Path(sys.argv[2]))
