"""Train the weights that ship with the package: python tools/train_weights.py [NAME ...]

Each recipe is src/ditbook/weights/NAME.toml. A run that was stopped goes on from its checkpoint in runs/.
"""

import argparse
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.svm import SVC

import ditbook
from ditbook import data, weights
from ditbook import generation as decoding
from ditbook.data import captions, digits, shapes, tokenizer
from ditbook.diffusion import losses, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion, Parameterization
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.judges import scene_reader as classifier
from ditbook.metrics import retrieval, text
from ditbook.models import autoencoder, clip
from ditbook.objectives import autoencoding, contrastive, tokens
from ditbook.training.loop import Batch, Loss, TrainConfig, train
from ditbook.weights import checkpoint

FOLDER = Path(weights.__file__).parent


@dataclass(frozen=True)
class Task:
    """What a recipe trains on, the loss, and how the trained model is measured."""

    batch: Batch
    loss: Loss
    measure: Callable[[torch.nn.Module], dict[str, float]]


def digits_task(recipe: dict[str, Any]) -> Task:
    family, diffusion = recipe["family"], GaussianDiffusion(schedules.linear())

    def measure(model: torch.nn.Module) -> dict[str, float]:
        metric = {"held-out mse of eps": round(held_out_loss(model, family, diffusion), 4)}
        return metric if family == "unet" else metric | {"agreement at guidance 2": agreement(model, diffusion)}

    return Task(data.tensors(digits.load("train")), digits_loss(family, diffusion), measure)


def captions_task(recipe: dict[str, Any]) -> Task:
    """Read English captions and write French ones, or summaries."""
    language, smoothing = recipe["writes"], recipe["label_smoothing"]

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        target = batch["target"]
        return tokens.next_token_loss(model(batch["source"], target[:, :-1]), target[:, 1:], smoothing)

    def measure(model: torch.nn.Module) -> dict[str, float]:
        batch = sentences(language, "validation", 2000, seed=1)
        written = decoding.greedy(
            model.step, model.start(batch["source"]), first=tokenizer.BOS, eos=tokenizer.EOS, max_length=50
        )
        right = text.exact_match(written, batch["target"][:, 1:], tokenizer.EOS)
        return {"exact match on 2,000 held-out scenes": round(right.double().mean().item(), 4)}

    return Task(sentences(language, "train", 50_000, seed=0), loss, measure)


def sentences(language: str, split: str, size: int, seed: int) -> Batch:
    """English captions as `source`, French ones or summaries as `target`, with begin and end."""
    rows = captions.load(split, size, seed)
    english, other = captions.tokenizer("english"), captions.tokenizer(language)
    return {
        "source": tokenizer.batch([english.encode(text) for text in rows["caption"]]),
        "target": tokenizer.batch([other.encode(text) for text in rows[language]], bos=True, eos=True),
    }


def shapes_task(recipe: dict[str, Any]) -> Task:
    """Read pictures of the shapes world, under noise, so that a painted picture may be a little off."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        x = pixels(batch["image"])
        sigma = recipe["noise"] * torch.rand(len(x), 1, 1, 1, generator=generator)
        return classifier.loss(model(x + sigma * torch.randn(x.shape, generator=generator)), batch["target"])

    def measure(model: torch.nn.Module) -> dict[str, float]:
        layouts = [layout for layout in drawn(50_000, seed=1) if shapes.held_out(layout)]
        images = pixels(torch.from_numpy(shapes.render(layouts)))
        seen = [row for part in images.split(500) for row in model.read(part)]
        right = sum(
            sorted(row, key=str) == sorted(zip(layout.scene.things, layout.places, strict=True), key=str)
            for row, layout in zip(seen, layouts, strict=True)
        )
        return {f"share of {len(layouts):,} held-out scenes read without a fault": round(right / len(layouts), 4)}

    layouts = [layout for layout in drawn(30_000, seed=0) if not shapes.held_out(layout)]
    batch = {"image": torch.from_numpy(shapes.render(layouts)), "target": classifier.targets(layouts)}
    return Task(batch, loss, measure)


def clip_task(recipe: dict[str, Any]) -> Task:
    """Bring pictures of the shapes world and their captions together in one space."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        model.clamp_scale()
        return contrastive.contrastive_loss(model(pixels(batch["image"]), batch["tokens"], batch["end"]))

    def measure(model: torch.nn.Module) -> dict[str, float]:
        metric = {}
        for split in ("validation", "compositional"):
            rows = data.tensors(shapes.load(split, 2000, seed=1, things=1))
            similarity = model.encode_image(rows["image"]) @ pair_vectors(model).T
            right = (similarity.argmax(dim=1) == rows["label"]).double().mean().item()
            metric[f"zero-shot accuracy of 64 classes, {split}"] = round(right, 4)
        rows = shapes.load("validation", 500, seed=1, things=3)
        tokens, end = prompts(rows["caption"])
        logits = model(data.tensors(rows)["image"], tokens, end)
        return metric | {"recall at 1 of 500 pictures of three things": round(retrieval.recall_at(logits, 1), 4)}

    layouts = shapes.sample(recipe["layouts"], torch.Generator().manual_seed(0), pairs=shapes.SEEN_PAIRS)
    layouts = [layout for layout in layouts if not shapes.held_out(layout)]
    tokens, end = prompts([captions.english(layout.scene) for layout in layouts])
    return Task({"image": torch.from_numpy(shapes.render(layouts)), "tokens": tokens, "end": end}, loss, measure)


def prompts(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions as CLIP reads them: tokens (B, T) with begin and end, and where the end stands, (B,)."""
    words = captions.tokenizer("english")
    tokens = tokenizer.batch([words.encode(text) for text in texts], bos=True, eos=True)
    return tokens, (tokens == tokenizer.EOS).int().argmax(dim=1)


def pair_vectors(model: clip.CLIP) -> torch.Tensor:
    """A vector for each pair of colour and shape, the mean of the small and the large one: (64, J)."""
    tokens, end = prompts([f"a {size} {colour} {shape}" for colour, shape in shapes.PAIRS for size in captions.SIZES])
    return clip.class_vectors(model, tokens.unflatten(0, (64, 2)), end.unflatten(0, (64, 2)))


def autoencoder_task(recipe: dict[str, Any]) -> Task:
    """Make small latents of pictures of the shapes world, and paint them again."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return autoencoding.autoencoder_loss(model, pixels(batch["image"]), generator, recipe["kl_weight"])

    def measure(model: torch.nn.Module) -> dict[str, float]:
        x = data.tensors(shapes.load("validation", 1000, seed=1))["image"]
        with torch.no_grad():
            parts = [model.encode(part) for part in x.split(100)]
            painted = torch.cat([model.decode(mean) for mean, _ in parts])
        mean, std = (torch.cat(part) for part in zip(*parts, strict=True))
        reader = weights.load("classifier-shapes")
        same = sum(one == other for one, other in zip(reader.read(x), reader.read(painted.clamp(-1, 1)), strict=True))
        return {
            "mean absolute error on held-out pictures": round((painted - x).abs().mean().item(), 4),
            "share of held-out pictures read alike after painting": same / len(x),
            "scale": round(autoencoder.latent_scale(mean, std), 4),
        }

    return Task({"image": torch.from_numpy(shapes.render(drawn(recipe["layouts"], seed=0)))}, loss, measure)


def scenes_task(recipe: dict[str, Any]) -> Task:
    """Paint one thing of the colour and shape asked for: in the autoencoder's latents, or in pixels."""
    diffusion, coder = GaussianDiffusion(schedules.linear()), latent_coder(recipe)
    predicts: Parameterization = recipe.get("predicts", "eps")

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        if coder is None:
            x = pixels(batch["image"])
        else:
            x = coder.config.scale * autoencoder.sample_latent(batch["mean"], batch["std"], generator)
        return noise_loss(model, diffusion, x, generator, batch["label"], predicts)

    def measure(model: torch.nn.Module) -> dict[str, float]:
        painted, y = paint(model, diffusion, coder, predicts)
        return {"share of 640 pictures that show what was asked for": round(shown(painted, y), 4)}

    layouts = shapes.sample(recipe["layouts"], torch.Generator().manual_seed(0), things=1)
    batch = {"label": torch.tensor([pair_of(layout) for layout in layouts])}
    images = torch.from_numpy(shapes.render(layouts))
    if coder is None:
        return Task(batch | {"image": images}, loss, measure)
    with torch.no_grad():
        parts = [coder.encode(pixels(part)) for part in images.split(200)]
    batch["mean"], batch["std"] = (torch.cat(part) for part in zip(*parts, strict=True))
    return Task(batch, loss, measure)


def latent_coder(recipe: dict[str, Any]) -> autoencoder.Autoencoder | None:
    """The autoencoder that a recipe names, or None if it works in pixels."""
    return weights.load(recipe["latents_of"]) if "latents_of" in recipe else None


def pair_of(layout: shapes.Layout) -> int:
    """The class of a layout of one thing."""
    (thing,) = layout.scene.things
    return shapes.PAIRS.index((thing.colour, thing.shape))


def paint(
    model: torch.nn.Module,
    diffusion: GaussianDiffusion,
    coder: autoencoder.Autoencoder | None,
    predicts: Parameterization,
    each: int = 10,
    guidance_scale: float = 2.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, 32, 32) of all 64 classes, `each` of each, by DDIM in 50 steps; and their classes (N,)."""
    y = torch.arange(64).repeat_interleave(each)
    config = model.config
    x = torch.randn(len(y), config.channels, config.size, config.size, generator=torch.Generator().manual_seed(2))
    guided = ClassifierFreeGuidance(model, guidance_scale, null={"y": 64})
    clip = 1.0 if coder is None else None
    out = samplers.ddim(guided, x, diffusion.respace(50), parameterization=predicts, clip=clip, y=y)
    if coder is not None:
        with torch.no_grad():
            out = torch.cat([coder.decode(part / coder.config.scale) for part in out.split(100)])
    return out.clamp(-1, 1), y


def shown(images: torch.Tensor, y: torch.Tensor) -> float:
    """Share of pictures in which the classifier sees one thing, and it is of the class asked for."""
    seen = weights.load("classifier-shapes").read(images)
    asked = [shapes.PAIRS[k] for k in y.tolist()]
    right = [
        len(things) == 1 and (things[0][0].colour, things[0][0].shape) == pair
        for things, pair in zip(seen, asked, strict=True)
    ]
    return sum(right) / len(right)


def drawn(count: int, seed: int) -> list[shapes.Layout]:
    """Layouts of one to three things, all pairs of colour and shape among them."""
    return shapes.sample(count, torch.Generator().manual_seed(seed))


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Bytes (B, H, W, C) → floats in [−1, 1], (B, C, H, W)."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


TASKS = {
    "autoencoder": autoencoder_task,
    "captions": captions_task,
    "clip": clip_task,
    "digits": digits_task,
    "scenes": scenes_task,
    "shapes": shapes_task,
}


def digits_loss(family: str, diffusion: GaussianDiffusion):
    """The loss of a recipe: ε-prediction, with the labels dropped now and then if the model has labels."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return noise_loss(model, diffusion, batch["image"], generator, None if family == "unet" else batch["label"])

    return loss


def noise_loss(
    model,
    diffusion: GaussianDiffusion,
    x: torch.Tensor,
    generator: torch.Generator,
    y: torch.Tensor | None,
    predicts: Parameterization = "eps",
) -> torch.Tensor:
    """The model's error about noise added to `x` at random timesteps, or about what else it predicts."""
    t = torch.randint(diffusion.num_steps, (len(x),), generator=generator)
    eps = torch.randn(x.shape, generator=generator)
    if y is None:
        return losses.simple_loss(model, diffusion, x, t, eps)
    y = model.label_embed.drop(y, generator)
    if model.config.learn_sigma:
        return losses.hybrid_loss(model, diffusion, x, t, eps, y=y)
    return losses.simple_loss(model, diffusion, x, t, eps, predicts, y=y)


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
    return round(float((reader.predict(out.flatten(1).numpy()) == y.numpy()).mean()), 3)


def make(name: str) -> None:
    recipe = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    config = TrainConfig(**recipe["training"])
    task = TASKS[recipe["task"]](recipe)
    torch.manual_seed(config.seed)
    model = weights.build(recipe["family"], recipe["model"])
    trained = train(model, task.loss, task.batch, config, path=Path("runs") / f"{name}.safetensors")
    stored = trained.ema.to(getattr(torch, recipe["dtype"])).float().eval()  # what will be read back
    recipe |= {"metric": task.measure(stored), "version": ditbook.__version__}
    print(name, recipe["metric"])
    tensors = {key: value.to(getattr(torch, recipe["dtype"])) for key, value in stored.state_dict().items()}
    checkpoint.save(FOLDER / f"{name}.safetensors", tensors, recipe)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.toml")))
    for name in parser.parse_args().names:
        make(name)
