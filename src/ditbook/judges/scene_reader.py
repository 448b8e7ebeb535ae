"""A convolutional network that reads images of the shapes world: which things they show, and where.

It judges the samples of other models: whether an image shows what its caption says, and by its features and its classes
how close generated images are to real ones. Each cell of 2×2 pixels says whether the center of a thing lies in it, and
which thing; so it reads scenes of any number of things.
Letters: `B` images, `C` channels, `G` cells along a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.data.scene import COLOURS, SHAPES, SIDE, SIZES, Layout, Place, Thing
from ditbook.layers.checks import check_images, check_multiple, check_positive, check_types
from ditbook.layers.conv import ResidualBlock

CELL = 2  # pixels along a side
G = SIDE // CELL
GROUPS, EPS = 8, 1e-5  # of every GroupNorm
# Classes of a cell's four attributes: size, color, shape, and the pixel of the cell whose upper left corner is the
# center, row by row.
ATTRIBUTES = (len(SIZES), len(COLOURS), len(SHAPES), CELL * CELL)
NOTHING = -1  # target of a cell without a thing


@dataclass(frozen=True, kw_only=True)
class SceneReaderConfig:
    """A scene reader.

    Raises:
        ValueError: a size that is not positive, or a width that the groups do not divide.
    """

    width: int = 48  # C
    blocks: int = 2  # residual blocks at half the resolution

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "width", "blocks")
        check_multiple("width", self.width, "the groups of GroupNorm:", GROUPS)


class SceneReader(nn.Module):
    """Images → things and places."""

    def __init__(self, config: SceneReaderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, stride=CELL, padding=1),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(width, width, GROUPS, EPS) for _ in range(config.blocks)))
        self.norm = nn.GroupNorm(GROUPS, width, EPS)
        self.head = nn.Conv2d(width, 1 + sum(ATTRIBUTES), 1)

    def hidden(self, images: Tensor) -> Tensor:
        """Images in [−1, 1], (B, 3, 32, 32) → features of each cell, (B, C, G, G).

        Raises:
            ValueError: images of another shape, or of whole numbers.
        """
        check_images(images, 3, SIDE)
        return F.silu(self.norm(self.blocks(self.stem(images))))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) → logits, (B, 1 + 22, G, G): whether a thing is there, then the classes of `ATTRIBUTES`."""
        return self.head(self.hidden(images))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """One vector for each image, (B, C): the mean over the cells. FID compares the vectors of two sets."""
        return self.hidden(images).mean(dim=(2, 3))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Probability of each of `shapes.PAIRS` in the most likely cell: (B, 64), each row sums to one."""
        logits = self(images).flatten(2)  # (B, 23, G·G)
        best = logits[:, 0].argmax(dim=1)  # (B,)
        rows = torch.arange(len(logits), device=logits.device)
        _, color, shape, _ = logits[rows, 1:, best].split(ATTRIBUTES, dim=1)
        return (color.softmax(dim=1)[:, :, None] * shape.softmax(dim=1)[:, None, :]).flatten(1)

    @torch.no_grad()
    def read(self, images: Tensor) -> list[list[tuple[Thing, Place]]]:
        """The things of each image and their places, from top to bottom; `data.scene.shows` compares with a caption.

        Of neighboring cells that both report a thing, the one of the largest logit counts.
        """
        logits = self(images)
        present = logits[:, 0]  # (B, G, G)
        sure = (present > 0) & (present == F.max_pool2d(present, 3, stride=1, padding=1))
        classes = torch.stack([part.argmax(dim=1) for part in logits[:, 1:].split(ATTRIBUTES, dim=1)], dim=1)
        found: list[list[tuple[Thing, Place]]] = [[] for _ in images]
        for image, row, column in sure.nonzero().tolist():
            size, color, shape, pixel = classes[image, :, row, column].tolist()
            place = (column * CELL + pixel % CELL, row * CELL + pixel // CELL)
            found[image].append((Thing(SIZES[size], COLOURS[color], SHAPES[shape]), place))
        return found


def targets(layouts: Sequence[Layout]) -> Tensor:
    """The true classes of all cells, (B, 4, G, G) int8; `NOTHING` where no thing has its center."""
    result = torch.full((len(layouts), len(ATTRIBUTES), G, G), NOTHING, dtype=torch.int8)
    for n, layout in enumerate(layouts):
        for it, (x, y) in zip(layout.scene.things, layout.places, strict=True):
            pixel = x % CELL + y % CELL * CELL
            classes = (SIZES.index(it.size), COLOURS.index(it.colour), SHAPES.index(it.shape), pixel)
            result[n, :, y // CELL, x // CELL] = torch.tensor(classes, dtype=torch.int8)
    return result


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over the cells and attributes of an image; the mean over images.

    Args:
        logits: (B, 23, G, G).
        targets: as `targets` gives them, (B, 4, G, G).
    """
    there = (targets[:, 0] != NOTHING).to(logits.dtype)
    total = F.binary_cross_entropy_with_logits(logits[:, 0], there, reduction="sum")
    for part, classes in zip(logits[:, 1:].split(ATTRIBUTES, dim=1), targets.unbind(dim=1), strict=True):
        total = total + F.cross_entropy(part, classes.long(), ignore_index=NOTHING, reduction="sum")
    return total / len(logits)
