"""Draw the pictures of the front page and of the README from the trained weights: book/static/*.png."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from train_weights import sentences

from ditbook import data, plotting, weights
from ditbook.data import captions, digits, shapes
from ditbook.diffusion import guidance, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.models.autoencoder import Autoencoder

FOLDER = Path(__file__).parents[1] / "book/static"
DIFFUSION = GaussianDiffusion(schedules.linear())


def painted_digits() -> Figure:
    """Five of each class by the DiT of chapter 16, guidance 2."""
    y = torch.arange(10).repeat(5)
    noise = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = guidance.ClassifierFreeGuidance(weights.load("dit-digits"), 2.0, null={"y": 10})
    return plotting.grid(samplers.ddim(model, noise, DIFFUSION.respace(50), clip=1.0, y=y), columns=10)


def painted_shapes(pairs: list[tuple[str, str]], seed: int) -> tuple[torch.Tensor, list[torch.Tensor], Autoencoder]:
    """Latents of the DiT of chapter 15, all of them on the way from noise, and the autoencoder; guidance 3."""
    y = torch.tensor([shapes.PAIRS.index(pair) for pair in pairs])
    noise = torch.randn(len(y), 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    model = guidance.ClassifierFreeGuidance(weights.load("dit-shapes-latent"), 3.0, null={"y": 64})
    way = [noise]
    z = samplers.ddim(model, noise, DIFFUSION.respace(50), callback=lambda i, x, prediction: way.append(x), y=y)
    return z, way, weights.load("autoencoder-shapes")


def from_noise() -> Figure:
    """Three things on their way from noise, decoded at eight moments."""
    pairs = [("yellow", "star"), ("red", "moon"), ("green", "triangle")]
    _, way, coder = painted_shapes(pairs, seed=4)
    moments = torch.stack([way[k] for k in (0, 16, 24, 32, 38, 43, 47, 50)], dim=1).flatten(0, 1)
    names = [" ".join(pair) for pair in pairs]
    return plotting.grid(coder.decode(moments / coder.config.scale).detach(), rows=names, scale=2)


def part1() -> Figure:
    """Where a translator looks."""
    batch = sentences("french", "validation", 40, seed=2)
    row = next(k for k in range(40) if 8 <= (batch["source"][k] != 0).sum() <= 11)
    source, target = batch["source"][row : row + 1], batch["target"][row : row + 1]
    words = [[language.decode([k]).strip() for k in tokens[0].tolist()] for language, tokens in (
        (captions.tokenizer("english"), source), (captions.tokenizer("french"), target))]  # fmt: skip
    shares = weights.load("translation-additive").alignment(source, target[:, :-1])[0].detach()
    across, down = (sum(word != "" for word in side) for side in words)
    fig = Figure(figsize=(6, 2.2), facecolor="white", layout="constrained")
    ax = fig.subplots()
    ax.imshow(shares[:down, :across], cmap="Blues", aspect="auto")
    ax.set_xticks(range(across), [word for word in words[0] if word], fontsize=9)
    ax.set_yticks(range(down), [word for word in words[1] if word], fontsize=9)
    ax.xaxis.tick_top()
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return fig


def part2() -> Figure:
    """Scenes that have captions."""
    layouts = shapes.sample(12, torch.Generator().manual_seed(8), things=2)
    return plotting.grid(torch.from_numpy(shapes.render(layouts)).permute(0, 3, 1, 2) / 127.5 - 1, columns=6, scale=2)


def part3() -> Figure:
    """Two digits and five levels of noise."""
    x = data.tensors(digits.load("train"))["image"][:2].repeat_interleave(6, dim=0)
    t = torch.tensor([0, 100, 200, 350, 550, 999]).repeat(2)
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return plotting.grid(DIFFUSION.add_noise(x, t, eps), columns=6, scale=8)


def part4() -> Figure:
    """Twelve things painted on demand."""
    z, _, coder = painted_shapes([shapes.PAIRS[k] for k in range(0, 60, 5)], seed=1)
    return plotting.grid(coder.decode(z / coder.config.scale).detach(), columns=6, scale=2)


if __name__ == "__main__":
    plotting.use_style()
    drawn = {"samples": painted_digits, "front": from_noise} | {f.__name__: f for f in (part1, part2, part3, part4)}
    for name, draw in drawn.items():
        draw().savefig(FOLDER / f"{name}.png", dpi=plotting.DPI, metadata={"Software": None})
