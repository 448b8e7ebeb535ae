"""The command `ditbook`: train a recipe, sample from weights, measure, export and list them."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 after an error (one line on stderr), 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        rank = os.environ.get("RANK", "0")  # of this process, under torchrun
        where = f"{options.command}, process {rank}" if rank != "0" else options.command
        print(f"ditbook {where}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    whole = argparse.ArgumentParser(prog="ditbook", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train shipped weights again from their recipe",
        description="Train shipped weights again from their recipe. The run saves a checkpoint every 500 steps in "
        "runs/NAME.safetensors; if it is stopped, the same command goes on from there, to the same result.",
    )
    train.add_argument("name", metavar="NAME", help="the weights, as `ditbook weights` lists them, or a .toml")
    train.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    train.add_argument("--steps", type=int, help="in place of the recipe's; the file's metadata then say so")
    train.add_argument("--out", type=Path, metavar="FILE", help="where the weights go (default: NAME.safetensors)")
    many = train.add_argument_group(
        "on several processes",
        "With one of these options, or started by torchrun, the run saves its checkpoints in runs/NAME/, and goes on "
        "from the newest that is whole, also with another number of processes.",
    )
    many.add_argument("--shard", choices=["ddp", "fsdp"], help="each process has all parameters (ddp), or a shard")
    many.add_argument("--precision", choices=["float32", "bfloat16"], help="of matrix products (default: float32)")
    many.add_argument("--compile", action="store_true", help="compile each block")
    many.add_argument("--recompute", action="store_true", help="recompute each block in the backward pass: less memory")
    many.add_argument("--parts", type=int, help="of a batch, computed one by one (default: one for each process)")
    many.add_argument("--watch", action="store_true", help="write scalars and samples for TensorBoard in runs/NAME/")
    many.add_argument("--real", help="images, as for `ditbook evaluate`: watch, and compare samples with them")
    many.add_argument("--features", default="scene-reader", help="of that comparison, or module:object")
    plan = train.add_argument_group("without training", "What the run will cost, with the options above.")
    plan.add_argument("--dry-run", action="store_true", help="print parameters, memory, operations and days")
    plan.add_argument("--card", default="H100", help="a GPU, for memory and days (default: H100)")
    plan.add_argument("--cards", type=int, default=1, help="their number (default: 1)")
    train.set_defaults(run=_train)

    encode = commands.add_parser(
        "encode",
        help="turn images into latents, for a DiT to train on",
        description="Encode images, and mirrored images, in shards. If it is stopped, the same command goes on. Under "
        "torchrun each process makes its own shards.",
    )
    encode.add_argument("source", metavar="SOURCE", help="a folder of images, a parquet file, or a dataset of the hub")
    encode.add_argument(
        "--autoencoder",
        required=True,
        metavar="NAME",
        help="weights, a weight file, or a folder of diffusers",
    )
    encode.add_argument("--size", type=int, default=256, help="side of the images (default: 256)")
    encode.add_argument("--split", default="train", help="of the source (default: train)")
    encode.add_argument("--batch-size", type=int, default=32, help="images at once (default: 32)")
    encode.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    encode.add_argument("--out", type=Path, metavar="FOLDER", default=Path("latents"), help="(default: latents)")
    encode.set_defaults(run=_encode)

    sampling = argparse.ArgumentParser(add_help=False)
    sampling.add_argument("--guidance-scale", type=float, default=1.0, help="1 is no guidance (default: 1)")
    sampling.add_argument("--steps", type=int, default=50, help="calls of the model (default: 50)")
    sampling.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")

    sample = commands.add_parser(
        "sample",
        parents=[sampling],
        help="generate images and save them as a PNG",
        description="Generate images by DDIM and save them as one PNG.",
    )
    sample.add_argument("name", metavar="NAME", help="the weights of a generator, or a weight file")
    sample.add_argument("--labels", help='classes, separated by commas: names or numbers, such as "red circle,12"')
    sample.add_argument("--count", type=int, help="number of images, for a model without classes")
    sample.add_argument("--out", type=Path, metavar="FILE", default=Path("samples.png"), help="(default: samples.png)")
    sample.set_defaults(run=_sample)

    evaluate = commands.add_parser(
        "evaluate",
        parents=[sampling],
        help="measure samples against real images: FID, KID, Inception Score, precision and recall",
        description="Measure samples against real images. Under torchrun the processes share the work.",
    )
    evaluate.add_argument("name", metavar="NAME", help="the weights of a generator, or a weight file")
    evaluate.add_argument("real", metavar="REAL", help="a folder of images, a parquet file, or a dataset of the hub")
    evaluate.add_argument("--count", type=int, default=1000, help="of samples (default: 1000)")
    evaluate.add_argument("--split", default="train", help="of the real images (default: train)")
    evaluate.add_argument("--features", default="scene-reader", help="or module:object, see the documentation")
    evaluate.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    evaluate.set_defaults(run=_evaluate)

    export = commands.add_parser(
        "export",
        help="write a DiT as others store it",
        description="Write a DiT in the official layout, a safetensors file, or as a folder of diffusers.",
    )
    export.add_argument("name", metavar="NAME", help="the weights of a DiT, or a weight file")
    export.add_argument("--layout", choices=["official", "diffusers"], required=True)
    export.add_argument("--out", type=Path, metavar="PATH", required=True, help="the file, or the folder")
    export.set_defaults(run=_export)

    listed = commands.add_parser("weights", help="list the shipped weights", description="List the shipped weights.")
    listed.set_defaults(run=_weights)
    return whole


def _plan(options: argparse.Namespace, layout: dict[str, Any]) -> None:
    from dataclasses import replace

    from ditbook.training import budget, recipes
    from ditbook.training.distributed import Layout

    recipe = recipes.load(options.name)
    steps = recipe.training.steps if options.steps is None else options.steps
    recipe = replace(recipe, training=replace(recipe.training, steps=steps))
    print(budget.report(recipe, Layout(**layout), options.card, options.cards, options.parts))


def _train(options: argparse.Namespace) -> None:
    from ditbook.training import recipes

    given = {key: getattr(options, key) for key in ("shard", "precision", "compile", "recompute")}
    given = {key: value for key, value in given.items() if value}
    if options.dry_run:
        return _plan(options, given)
    options.out = options.out or Path(f"{recipes.load(options.name).name}.safetensors")
    if given or options.parts or options.watch or options.real or "RANK" in os.environ:
        metric = _train_together(options, given)
    else:
        metric = _train_alone(options)
    if metric:
        print(f"{options.out} ({_listed(metric)})")


def _train_alone(options: argparse.Namespace) -> dict[str, float]:
    from ditbook.training import recipes

    checkpoint = Path("runs") / f"{recipes.load(options.name).name}.safetensors"
    if checkpoint.exists():
        print(f"going on from {checkpoint}; remove it to start anew")
    return recipes.train(options.name, device=options.device, steps=options.steps, out=options.out)


def _train_together(options: argparse.Namespace, layout: dict[str, Any]) -> dict[str, float]:
    from ditbook.training import launch
    from ditbook.training.distributed import Layout

    return launch.train(
        options.name,
        Layout(**layout),
        device=options.device,
        steps=options.steps,
        parts=options.parts,
        out=options.out,
        watch=options.watch,
        real=options.real,
        features=options.features,
    )


def _encode(options: argparse.Namespace) -> None:
    from ditbook.training import latents

    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    place = os.environ.get("LOCAL_RANK", "")
    rows = latents.encode(
        options.source,
        options.out,
        autoencoder=options.autoencoder,
        size=options.size,
        split=options.split,
        device=f"cuda:{place}" if options.device == "cuda" and place else options.device,
        batch_size=options.batch_size,
        rank=rank,
        processes=processes,
    )
    if rank == 0:
        print(f"{options.out} ({rows:,} images)")


def _sample(options: argparse.Namespace) -> None:
    from ditbook import pipeline, plotting

    labels = options.labels and [label.strip() for label in options.labels.split(",")]
    numbered = labels and [int(label) if label.isdigit() else label for label in labels]
    images = pipeline.load(options.name).sample(
        numbered,
        count=options.count,
        guidance_scale=options.guidance_scale,
        steps=options.steps,
        seed=options.seed,
        progress=True,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    plotting.grid(images, titles=labels).savefig(options.out, dpi=plotting.DPI)
    print(options.out)


def _evaluate(options: argparse.Namespace) -> None:
    from ditbook.training import evaluation

    names = ("count", "split", "features", "guidance_scale", "steps", "seed", "device")
    found = evaluation.evaluate(options.name, options.real, **{name: getattr(options, name) for name in names})
    if found:
        print(f"{_listed(found)}; features: {options.features}")


def _export(options: argparse.Namespace) -> None:
    from ditbook import weights
    from ditbook.convert import dit
    from ditbook.models.dit import DiT

    model = weights.load(options.name)
    if not isinstance(model, DiT):
        raise ValueError(f"{options.name} is a {type(model).__name__}, no DiT")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    {"official": dit.save_official, "diffusers": dit.to_folder}[options.layout](model, options.out)
    print(options.out)


def _weights(options: argparse.Namespace) -> None:
    from ditbook import weights

    for name in weights.names():
        about = weights.summary(name)
        print(f"{name}: {about.bytes / 1e6:.1f} MB, {about.parameters:,} parameters")
        print(f"    {about.description}")
        print(f"    {_listed(about.metric)}")


def _listed(metric: dict[str, float]) -> str:
    return ", ".join(f"{name}: {value:g}" for name, value in metric.items())
