"""A convolutional network that reads pictures of the shapes world: which things, and where.

It judges what other models paint: whether a picture shows what its caption says, and by its features and its classes
how like real pictures those of a model are. Each cell of 2×2 pixels answers whether the centre of a thing is in it, and
which thing; so it reads scenes of any number of things.
Letters: `B` pictures, `C` channels, `G` cells along a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.data.scene import COLOURS, SHAPES, SIDE, SIZES, Layout, Place, Thing

CELL = 2  # pixels along a side
G = SIDE // CELL
# What a cell answers, by the number of choices. The last one is the pixel of the cell whose upper left corner the
# centre is, row by row.
QUESTIONS = (len(SIZES), len(COLOURS), len(SHAPES), CELL * CELL)
NOTHING = -1  # the answer of a cell without a thing


@dataclass(frozen=True)
class ClassifierConfig:
    """The design of the network: channels, and residual blocks at half the resolution."""

    width: int = 48
    blocks: int = 2


class Block(nn.Module):
    """x + two convolutions, each after a norm and a SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, G, G) → the same."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.silu(norm(h)))
        return x + h


class SceneClassifier(nn.Module):
    """Pictures → things and places.

    Args:
        config: the design.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.width // 2, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width // 2, config.width, 4, stride=CELL, padding=1),
        )
        self.blocks = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)))
        self.norm = nn.GroupNorm(8, config.width)
        self.head = nn.Conv2d(config.width, 1 + sum(QUESTIONS), 1)

    def hidden(self, images: Tensor) -> Tensor:
        """Images in [−1, 1], (B, 3, 32, 32) → what the answers are read from, (B, C, G, G).

        Raises:
            ValueError: images of another shape.
        """
        if images.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"images of shape {tuple(images.shape)}; expected (batch, 3, {SIDE}, {SIDE})")
        return F.silu(self.norm(self.blocks(self.stem(images))))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) → logits, (B, 1 + 22, G, G): a thing or not, then the choices of each of the `QUESTIONS`."""
        return self.head(self.hidden(images))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """One vector for each picture, (B, C): the mean over the cells. FID compares the vectors of two sets."""
        return self.hidden(images).mean(dim=(2, 3))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """How likely each of `shapes.PAIRS` is where a thing is most likely to be: (B, 64), each row sums to 1."""
        logits = self(images).flatten(2)  # (B, 23, G·G)
        best = logits[:, 0].argmax(dim=1)  # (B,)
        _, colour, shape, _ = logits[torch.arange(len(logits)), 1:, best].split(QUESTIONS, dim=1)
        return (colour.softmax(dim=1)[:, :, None] * shape.softmax(dim=1)[:, None, :]).flatten(1)

    @torch.no_grad()
    def read(self, images: Tensor) -> list[list[tuple[Thing, Place]]]:
        """The things of each picture and their places, from top to bottom; `data.scene.shows` compares with a caption.

        Where neighbouring cells both see a thing, the surer one counts.
        """
        logits = self(images)
        present = logits[:, 0]  # (B, G, G)
        sure = (present > 0) & (present == F.max_pool2d(present, 3, stride=1, padding=1))
        answers = torch.stack([part.argmax(dim=1) for part in logits[:, 1:].split(QUESTIONS, dim=1)], dim=1)
        found: list[list[tuple[Thing, Place]]] = [[] for _ in images]
        for picture, row, column in sure.nonzero().tolist():
            size, colour, shape, pixel = answers[picture, :, row, column].tolist()
            place = (column * CELL + pixel % CELL, row * CELL + pixel // CELL)
            found[picture].append((Thing(SIZES[size], COLOURS[colour], SHAPES[shape]), place))
        return found


def targets(layouts: Sequence[Layout]) -> Tensor:
    """The right answers of all cells, (B, 4, G, G) int8; `NOTHING` where no thing has its centre."""
    result = torch.full((len(layouts), len(QUESTIONS), G, G), NOTHING, dtype=torch.int8)
    for n, layout in enumerate(layouts):
        for it, (x, y) in zip(layout.scene.things, layout.places, strict=True):
            answers = (
                SIZES.index(it.size),
                COLOURS.index(it.colour),
                SHAPES.index(it.shape),
                x % CELL + y % CELL * CELL,
            )
            result[n, :, y // CELL, x // CELL] = torch.tensor(answers, dtype=torch.int8)
    return result


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, all questions of a picture added up, and the mean over pictures.

    Args:
        logits: (B, 23, G, G).
        targets: the right answers, (B, 4, G, G).
    """
    there = (targets[:, 0] != NOTHING).to(logits.dtype)
    total = F.binary_cross_entropy_with_logits(logits[:, 0], there, reduction="sum")
    for choices, answers in zip(logits[:, 1:].split(QUESTIONS, dim=1), targets.unbind(dim=1), strict=True):
        total = total + F.cross_entropy(choices, answers.long(), ignore_index=NOTHING, reduction="sum")
    return total / len(logits)
