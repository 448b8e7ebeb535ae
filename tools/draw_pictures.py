"""Draw the images of the front page, of the README and of the pages on data: book/static/*.png."""

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ditbook import data, pipeline, plotting, rng, weights
from ditbook.data import captions, digits, emoji, mnist, shapes
from ditbook.diffusion import samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion
from ditbook.diffusion.guidance import ClassifierFreeGuidance
from ditbook.training.tasks import emoji as emoji_task
from ditbook.training.tasks import text_dit
from ditbook.training.tasks.captions import caption_tokens

FOLDER = Path(__file__).parents[1] / "book/static"
STEPS = 50
THINGS = ("red apple", "sunflower", "panda", "rocket", "blue heart", "hamburger", "cactus", "guitar", "lady beetle")
THINGS += ("smiling face with sunglasses",)


def front() -> Figure:
    """Ten things by six hands, guidance 4, and thirty digits, guidance 2. The things were chosen, the pictures not."""
    coder, painter = weights.load("autoencoder-emoji"), weights.load("text-dit-emoji")
    process, generator = pipeline.process(painter, None, pipeline.STRAIGHT), torch.Generator().manual_seed(0)
    tokens, _ = emoji_task.prompts([*THINGS] * len(emoji.HANDS))
    hands = torch.arange(len(emoji.HANDS)).repeat_interleave(len(THINGS))
    things = text_dit.generate(painter, process, coder, tokens, hands, generator)
    numbers = pipeline.load("dit-digits-28").sample([*range(10)] * 3, guidance_scale=2.0, steps=STEPS)
    numbers = F.pad(numbers, (2, 2, 2, 2), value=-1).expand(-1, 3, -1, -1)
    rows = [part.unflatten(0, (len(emoji.HANDS), -1)) for part in (things, numbers)]
    return plotting.grid(torch.cat(rows, dim=1).flatten(0, 1), columns=len(THINGS) + 5, scale=2)


def live() -> Figure:
    """What the painter of the front page paints first: a 3 on its way from noise, and the network's guesses."""
    generator, moments = pipeline.load("dit-digits-28-small"), (0, 4, 7, 11, 14, 18, 21, 25)
    noise = rng.randn((1, 1, 28, 28), torch.Generator().manual_seed(0), like=torch.zeros(1))
    guided, y = ClassifierFreeGuidance(generator.model, 2.0), torch.tensor([3])
    frames = list(samplers.progressive(guided, noise, generator.diffusion.respace(25), clip=1.0, y=y))
    way, guesses = [noise, *(frame.x for frame in frames)], [noise, *(frame.prediction.x_start for frame in frames)]
    shown = torch.cat([images[k] for images in (way, guesses) for k in moments])
    return plotting.grid(shown, rows=["the digit", "the guess"], columns=8, scale=2)


def part1() -> Figure:
    """To which words a translator attends."""
    batch = caption_tokens("french", "validation", 40, seed=2)
    row = next(k for k in range(40) if 8 <= (batch["source"][k] != 0).sum() <= 11)
    source, target = batch["source"][row : row + 1], batch["target"][row : row + 1]
    words = [[language.decode([k]).strip() for k in tokens[0].tolist()] for language, tokens in (
        (captions.tokenizer("english"), source), (captions.tokenizer("french"), target))]  # fmt: skip
    attention = weights.load("translation-additive").alignment(source, target[:, :-1])[0].detach()
    across, down = (sum(word != "" for word in side) for side in words)
    fig = Figure(figsize=(6, 2.2), facecolor="white", layout="constrained")
    ax = fig.subplots()
    ax.imshow(attention[:down, :across], cmap="Blues", aspect="auto")
    ax.set_xticks(range(across), [word for word in words[0] if word], fontsize=9)
    ax.set_yticks(range(down), [word for word in words[1] if word], fontsize=9)
    ax.xaxis.tick_top()
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return fig


def part2() -> Figure:
    """Scenes that have captions."""
    return plotting.grid(
        shapes.tensors(shapes.sample(12, torch.Generator().manual_seed(8), things=2)), columns=6, scale=2
    )


def part3() -> Figure:
    """Two digits and five levels of noise."""
    x = data.tensors(digits.load("train"))["image"][:2].repeat_interleave(6, dim=0)
    t = torch.tensor([0, 100, 200, 350, 550, 999]).repeat(2)
    eps = rng.randn(x.shape, torch.Generator().manual_seed(0), like=x)
    return plotting.grid(GaussianDiffusion(schedules.linear()).add_noise(x, t, eps), columns=6, scale=8)


def part4() -> Figure:
    """Twelve things by the DiT of chapter 15, guidance 3."""
    generator = pipeline.load("dit-shapes-latent")
    return plotting.grid(
        generator.sample(list(range(0, 60, 5)), guidance_scale=3.0, steps=STEPS, seed=1), columns=6, scale=2
    )


def mnist_digits() -> Figure:
    """Two of each digit of MNIST at full size."""
    rows = data.tensors(mnist.load("train"))
    chosen = [int((rows["label"] == k).nonzero()[n]) for n in (0, 1) for k in range(10)]
    return plotting.grid(rows["image"][chosen], columns=10, scale=2)


def emoji_hands() -> Figure:
    """Eight things as each of the six hands drew them."""
    things = ("red apple", "owl", "octopus", "rocket", "hot dog", "snowman", "guitar", "sunflower")
    rows = emoji.load("train")
    place = {key: k for k, key in enumerate(zip(rows["caption"], rows["hand"], strict=True))}
    hands = range(len(emoji.HANDS))
    names = [name for name in things if all((name, hand) in place for hand in hands)]
    images = data.tensors(rows.select([place[name, hand] for hand in hands for name in names]))["image"]
    return plotting.grid(images, rows=emoji.HANDS, titles=[name.replace(" ", "\n") for name in names], scale=2)


if __name__ == "__main__":
    plotting.use_style()
    for draw in (front, live, part1, part2, part3, part4, mnist_digits, emoji_hands):
        draw().savefig(FOLDER / f"{draw.__name__}.png", dpi=plotting.DPI, metadata={"Software": None})
