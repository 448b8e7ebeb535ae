"""Train the weights that ship with the package: python tools/train_weights.py [NAME ...]

Each recipe is src/ditbook/weights/NAME.toml. A run that was stopped goes on from its checkpoint in runs/.
"""

import argparse
import tomllib
from pathlib import Path

import torch
from sklearn.svm import SVC

import ditbook
from ditbook import data, weights
from ditbook.data import digits
from ditbook.diffusion import losses, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.training import checkpoint
from ditbook.training.loop import Batch, TrainConfig, train

FOLDER = Path(weights.__file__).parent


def digits_loss(family: str, diffusion: GaussianDiffusion):
    """The loss of a recipe: ε-prediction, with the labels dropped now and then if the model has labels."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        x = batch["image"]
        t = torch.randint(diffusion.num_steps, (len(x),), generator=generator)
        eps = torch.randn(x.shape, generator=generator)
        if family == "unet":
            return losses.simple_loss(model, diffusion, x, t, eps)
        y = model.label_embed.drop(batch["label"], generator)
        objective = losses.hybrid_loss if model.config.learn_sigma else losses.simple_loss
        return objective(model, diffusion, x, t, eps, y=y)

    return loss


def held_out_loss(model, family: str, diffusion: GaussianDiffusion) -> float:
    """Mean squared error of ε on the validation digits, 20 draws of noise each, t uniform."""
    batch = data.tensors(digits.load("validation"))
    x, y = batch["image"].repeat(20, 1, 1, 1), batch["label"].repeat(20)
    generator = torch.Generator().manual_seed(1)
    t = torch.randint(diffusion.num_steps, (len(x),), generator=generator)
    eps = torch.randn(x.shape, generator=generator)
    condition = {} if family == "unet" else {"y": y}
    output = model(diffusion.add_noise(x, t, eps), t, **condition)[:, : x.shape[1]]
    return (output - eps).square().mean().item()


def agreement(model, diffusion: GaussianDiffusion, guidance_scale: float = 2.0) -> float:
    """Share of 500 samples (DDIM, 50 steps) that a support vector classifier reads as the digit asked for."""
    real = data.tensors(digits.load("train"))
    reader = SVC(gamma=0.05, C=10).fit(real["image"].flatten(1).numpy(), real["label"].numpy())
    y = torch.arange(10).repeat(50)
    x = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    guided = ClassifierFreeGuidance(model, guidance_scale, null={"y": 10})
    out = samplers.ddim(guided, x, diffusion.respace(50), clip=1.0, y=y)
    return float((reader.predict(out.flatten(1).numpy()) == y.numpy()).mean())


def make(name: str) -> None:
    recipe = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    family, config = recipe["family"], TrainConfig(**recipe["training"])
    torch.manual_seed(config.seed)
    model = weights.build(family, recipe["model"])
    diffusion = GaussianDiffusion(schedules.linear())
    trained = train(
        model,
        digits_loss(family, diffusion),
        data.tensors(digits.load("train")),
        config,
        path=Path("runs") / f"{name}.safetensors",
    )
    metric = {"held-out mse of eps": round(held_out_loss(trained.ema, family, diffusion), 4)}
    if family == "dit":
        metric["agreement at guidance 2"] = round(agreement(trained.ema, diffusion), 3)
    print(name, metric)
    recipe |= {"metric": metric, "version": ditbook.__version__}
    checkpoint.save(FOLDER / f"{name}.safetensors", trained.ema.state_dict(), recipe)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.toml")))
    for name in parser.parse_args().names:
        make(name)
