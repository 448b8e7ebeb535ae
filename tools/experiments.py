"""Measure what the chapters report: python tools/experiments.py [EXPERIMENT ...]

Each measurement is added to src/ditbook/results/NAME.json as soon as it is taken, and what is there already is not
taken again. A training that was stopped goes on from its checkpoint in runs/experiments. A GPU is used if there is one.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import experiments_bert
import experiments_finetuning
import experiments_transformer
import torch

from ditbook import pipeline, results, weights
from ditbook.metrics import fid
from ditbook.models.dit import BLOCKS, DiT, DiTConfig
from ditbook.training import recipes
from ditbook.training.loop import TrainConfig, train
from ditbook.training.tasks.digits import Digits

FOLDER = Path(results.__file__).parent
RUNS = Path("runs/experiments")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = ("S", "M", "L", "XL")  # of the models tiny-S to tiny-XL
PATCHES = (4, 2, 1)  # of images of 8 × 8: 4, 16 and 64 tokens
COUNT = 1500  # samples for one distance, as many as there are digits to learn from
BATCH_SIZE = 128
TASK = Digits()
STARTS = ("random-start", "open-start")  # of the gates of adaLN-Zero: random, or one


@dataclass(frozen=True)
class Run:
    """One model, trained once; measured after each of `steps`, after 1,000 with each of `sampling_steps`."""

    experiment: str
    size: str
    patch: int
    block: str
    seed: int
    steps: tuple[int, ...]
    sampling_steps: tuple[int, ...] = (25,)  # at other times the first of them alone

    @property
    def config(self) -> DiTConfig:
        digit = {"size": 8, "channels": 1, "num_classes": 10, "learn_sigma": False}
        return DiTConfig.from_name(f"tiny-{self.size}/{self.patch}", **digit, block=self.block)


def runs(experiment: str) -> list[Run]:
    """What an experiment consists of."""
    if experiment in ("ablation", *STARTS):
        blocks = tuple(BLOCKS) if experiment == "ablation" else ("adaLN-Zero",)
        return [Run(experiment, "M", 2, block, seed, (500, 1000, 2000)) for seed in range(3) for block in blocks]
    short, long = (250, 500, 1000), (250, 500, 1000, 4000)
    return [
        Run(
            experiment,
            size,
            patch,
            "adaLN-Zero",
            seed=0,
            steps=short if patch == 1 or size == "XL" else long,
            sampling_steps=(25, 5, 10, 50, 100) if patch == 4 else (25,),
        )
        for patch in PATCHES
        for size in SIZES
    ]


@cache
def real() -> fid.Statistics:
    """Statistics of the digits to learn from; the features are the pixels."""
    return fid.statistics(lambda x: x.flatten(1), TASK.data()["image"])


def distance(model: DiT, sampling_steps: int) -> float:
    """Fréchet distance in pixels between real and generated digits, DDIM without guidance."""
    generator = pipeline.Pipeline(model, pipeline.process(model), pipeline.DIGITS)
    labels = torch.arange(10).repeat(COUNT // 10).tolist()
    images = generator.sample(labels, steps=sampling_steps, seed=9)
    return fid.frechet(real(), fid.statistics(lambda x: x.flatten(1), images))


def measure(run: Run) -> None:
    """Train a model as far as it goes and store what was not stored yet."""
    path = RUNS / f"{run.experiment}-{run.size}-{run.patch}-{run.block}-{run.seed}.safetensors"
    torch.manual_seed(run.seed)
    model = DiT(run.config)
    for block in model.blocks if run.experiment in STARTS else ():  # adaLN-Zero without its zeros
        if run.experiment == "random-start":
            torch.nn.init.xavier_uniform_(block.modulation.weight)
        else:
            block.modulation.bias.data.view(6, -1)[[2, 5]] = 1.0  # both gates
    model.to(DEVICE)
    for steps in run.steps:
        wanted = run.sampling_steps if steps == 1000 else run.sampling_steps[:1]
        key = {"size": run.size, "patch": run.patch, "block": run.block, "seed": run.seed, "steps": steps}
        missing = [s for s in wanted if not stored(run.experiment, key | {"sampling_steps": s})]
        if missing:
            training = TrainConfig(steps=steps, batch_size=BATCH_SIZE, warmup_steps=100, ema_decay=0.99, seed=run.seed)
            store_measurements(run, model, training, path, key, missing)


def store_measurements(
    run: Run, model: DiT, training: TrainConfig, path: Path, key: dict[str, Any], missing: list[int]
) -> None:
    """Train up to a number of steps, and add a row for each missing number of sampling steps."""
    start = time.perf_counter()
    ema = train(model, TASK.loss, TASK.data(), training, path=path, save_every=100_000).ema
    seconds, counted = round(time.perf_counter() - start, 1), run.config.complexity()
    loss = TASK.held_out_error(ema.cpu())
    ema.to(DEVICE)
    for sampling_steps in missing:
        row = key | {"sampling_steps": sampling_steps, "distance": distance(ema, sampling_steps), "loss": loss}
        row |= {"parameters": counted.trainable, "macs": counted.macs, "batch_size": BATCH_SIZE, "pictures": COUNT}
        store(run.experiment, row | {"seconds": seconds} | machine())


def transformer(experiment: str) -> None:
    """Chapter 3: where the norm stands, or two translators."""
    for key, measured in experiments_transformer.EXPERIMENTS[experiment]():
        if not stored(experiment, key):
            store(experiment, key | measured() | machine())


def masking() -> None:
    """BERT, the parts of its masking rule, its rival, and what can be read where nothing was learned."""
    for seed in range(experiments_bert.SEEDS):
        for rule in experiments_bert.RULES:
            if not stored("masking", {"rule": rule, "seed": seed}):
                start = time.perf_counter()
                row = experiments_bert.measure(rule, seed, RUNS)
                store("masking", row | {"seconds": round(time.perf_counter() - start, 1)} | machine())
    for kind, seed in experiments_bert.FLOORS:
        if not stored("masking", {"rule": kind, "seed": seed}):
            store("masking", experiments_bert.floor(kind, seed) | machine())


def manual() -> None:
    """BERT and its rival on Python's manual, after two numbers of steps."""
    for steps in experiments_bert.MANUAL_STEPS:
        for seed in range(experiments_bert.SEEDS):
            for rule in ("80/10/10", experiments_bert.LEFT):
                key = {"rule": rule, "seed": seed, "steps": steps}
                if not stored("manual", key):
                    store("manual", key | experiments_bert.on_the_manual(rule, seed, steps, RUNS) | machine())


def fine_tuning() -> None:
    """The pre-trained BERT of `masking` and an untrained one, fine-tuned with few labels and with many."""
    for seed in range(experiments_finetuning.SEEDS):
        for key, measured in experiments_finetuning.measurements(seed, RUNS):
            if not stored("fine-tuning", key):
                store("fine-tuning", key | {"accuracy": measured()} | machine())


def pixel_noise() -> None:
    """The pixel DiT of chapter 15, trained to predict the noise instead of the clean image."""
    recipe = recipes.load("dit-shapes-pixel")
    task, training = replace(recipe.task, predicts="eps"), recipe.training
    if stored("pixel-noise", {"steps": training.steps}):
        return
    torch.manual_seed(training.seed)
    model = weights.build(recipe.table["family"], recipe.table["model"])
    trained = train(model, task.loss, task.data(), training, path=RUNS / "pixel-noise.safetensors")
    (accuracy,) = task.evaluate(trained.ema).values()
    row = {"steps": training.steps, "seed": training.seed, "loss": sum(trained.losses[-500:]) / 500}
    store("pixel-noise", row | {"share of 640 pictures that show what was asked for": accuracy} | machine())


def machine() -> dict[str, str]:
    """What the training ran on."""
    gpu, cpu = DEVICE.type == "cuda", f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {"machine": torch.cuda.get_device_name() if gpu else cpu, "torch": torch.__version__.split("+")[0]}


def rows(experiment: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{experiment}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def stored(experiment: str, key: dict[str, Any]) -> bool:
    """Whether a measurement is there already."""
    return any(all(row[name] == value for name, value in key.items()) for row in rows(experiment))


def store(experiment: str, row: dict[str, Any]) -> None:
    """Add a row; the file is replaced as a whole."""
    path = FOLDER / f"{experiment}.json"
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in [*rows(experiment), row])
    path.with_suffix(".tmp").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)
    print(experiment, row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    import experiments_bound  # these import this module
    import experiments_cascade
    import experiments_codebooks
    import experiments_dalle
    import experiments_editing
    import experiments_emoji
    import experiments_gpt
    import experiments_hands
    import experiments_probes
    import experiments_rlhf
    import experiments_sampling
    import experiments_scaling
    import experiments_seeds
    import experiments_text_dit
    import experiments_unclip

    single = {
        **{name: partial(transformer, name) for name in experiments_transformer.EXPERIMENTS},
        "pixel-noise": pixel_noise,
        "masking": masking,
        "manual": manual,
        "fine-tuning": fine_tuning,
        "bound": experiments_bound.measure,
        "bound-samples": experiments_bound.draw,
        "codebooks": experiments_codebooks.collapse,
        "gpt-scaling": experiments_gpt.scaling,
        "gpt-mappings": experiments_gpt.learning,
        **experiments_cascade.EXPERIMENTS,
        **experiments_dalle.EXPERIMENTS,
        **experiments_editing.EXPERIMENTS,
        **experiments_emoji.EXPERIMENTS,
        **experiments_hands.EXPERIMENTS,
        **experiments_rlhf.EXPERIMENTS,
        **experiments_sampling.EXPERIMENTS,
        **experiments_scaling.EXPERIMENTS,
        **experiments_seeds.EXPERIMENTS,
        **experiments_probes.EXPERIMENTS,
        **experiments_text_dit.EXPERIMENTS,
        **experiments_unclip.EXPERIMENTS,
    }
    names = ["ablation", *STARTS, "scaling", *single]
    parser.add_argument("experiments", nargs="*", default=names, choices=names)
    RUNS.mkdir(parents=True, exist_ok=True)
    for experiment in parser.parse_args().experiments:
        if experiment in single:
            single[experiment]()
            continue
        for run in runs(experiment):
            measure(run)
