"""The command `ditbook`: train the shipped weights again, sample from them, list them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 after an error (one line on stderr), 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"ditbook {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
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
    train.add_argument("name", metavar="NAME", help="the weights, as `ditbook weights` lists them")
    train.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    train.add_argument("--steps", type=int, help="in place of the recipe's; the file's metadata then say so")
    train.add_argument("--out", type=Path, metavar="FILE", help="where the weights go (default: NAME.safetensors)")
    train.set_defaults(run=_train)

    sample = commands.add_parser(
        "sample",
        help="generate images and save them as a PNG",
        description="Generate images by DDIM and save them as one PNG.",
    )
    sample.add_argument("name", metavar="NAME", help="the weights of a generator, or a weight file")
    sample.add_argument("--labels", help='classes, separated by commas: names or numbers, such as "red circle,12"')
    sample.add_argument("--count", type=int, help="number of images, for a model without classes")
    sample.add_argument("--guidance-scale", type=float, default=1.0, help="1 is no guidance (default: 1)")
    sample.add_argument("--steps", type=int, default=50, help="calls of the model (default: 50)")
    sample.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    sample.add_argument("--out", type=Path, metavar="FILE", default=Path("samples.png"), help="(default: samples.png)")
    sample.set_defaults(run=_sample)

    listed = commands.add_parser("weights", help="list the shipped weights", description="List the shipped weights.")
    listed.set_defaults(run=_weights)
    return whole


def _train(options: argparse.Namespace) -> None:
    from ditbook.training import recipes

    out = options.out or Path(f"{options.name}.safetensors")
    checkpoint = Path("runs") / f"{options.name}.safetensors"
    if checkpoint.exists():
        print(f"going on from {checkpoint}; remove it to start anew")
    metric = recipes.train(options.name, device=options.device, steps=options.steps, out=out)
    print(f"{out} ({_listed(metric)})")


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


def _weights(options: argparse.Namespace) -> None:
    from ditbook import weights

    for name in weights.names():
        about = weights.summary(name)
        print(f"{name}: {about.bytes / 1e6:.1f} MB, {about.parameters:,} parameters")
        print(f"    {about.description}")
        print(f"    {_listed(about.metric)}")


def _listed(metric: dict[str, float]) -> str:
    return ", ".join(f"{name}: {value:g}" for name, value in metric.items())
