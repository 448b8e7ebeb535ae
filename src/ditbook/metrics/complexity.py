"""Multiply–adds and parameters of DiT, ViT and a layer of a Transformer: counted by running them, and by formula.

The paper's "Gflops" are 10⁹ multiply–adds of one forward pass at batch 1, without guidance and without decoder.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ditbook.layers.embeddings import FREQUENCY_WIDTH
from ditbook.models.dit import DiT, DiTConfig
from ditbook.models.vit import ViTConfig


@dataclass(frozen=True)
class Complexity:
    """Counts of one forward pass at batch 1. Letters: `T` tokens, `D` width, `L` layers.

    `macs` are multiply–adds of matrix products; `norms` one operation for each number that a LayerNorm normalises.
    """

    macs: int
    norms: int
    trainable: int
    fixed: int  # the position table

    @property
    def gflops(self) -> float:
        """The paper's Gflops: (macs + norms) / 10⁹."""
        return (self.macs + self.norms) / 1e9

    @property
    def total(self) -> int:
        """All stored numbers, the position table included."""
        return self.trainable + self.fixed


def count_macs(model: Callable[..., object], *inputs: Tensor, **kwargs: Tensor) -> int:
    """Multiply–adds of all matrix products in one call of `model`, by PyTorch's own counter."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(*inputs, **kwargs)
    return counter.get_total_flops() // 2  # a multiply–add is two flops


def measure(config: DiTConfig) -> Complexity:
    """Count by building the model on the meta device, which needs no memory, and running it."""
    with torch.device("meta"):
        model = DiT(config)
        x = torch.empty(1, config.channels, config.size, config.size)
        index = torch.zeros(1, dtype=torch.long)
        macs = count_macs(model, x, index, index)
    return Complexity(
        macs=macs,
        norms=_norms(config),
        trainable=sum(p.numel() for p in model.parameters()),
        fixed=model.pos_embed.numel(),
    )


def formula(config: DiTConfig) -> Complexity:
    """The same counts without running anything.

    Source: derived in chapter 16; it gives every row of Table 4 of Peebles & Xie 2023, and the four blocks of its
    figure 5.
    """
    T, D, L = config.tokens, config.width, config.depth
    patch, out = config.patch**2 * config.channels, config.patch**2 * config.out_channels
    conditioning = FREQUENCY_WIDTH * D + D * D
    shared = config.block == "in-context"
    within = T + 2 if shared else T  # tokens inside the blocks
    extra, learned = {  # of a block: multiply–adds and parameters beyond attention and perceptron
        "in-context": (0, 4 * D),
        "cross-attention": (2 * D * D * T + 4 * D * D + 4 * T * D, 4 * D * D + 10 * D),
        "adaLN": (4 * D * D, 4 * D * D + 4 * D),
        "adaLN-Zero": (6 * D * D, 6 * D * D + 6 * D),
    }[config.block]
    block = 12 * D * D * within + 2 * within * within * D + extra
    modulated = config.block.startswith("adaLN")
    macs = T * patch * D + conditioning + L * block + (2 * D * D if modulated else 0) + T * D * out  # (16.14)
    trainable = (
        (patch + 1) * D + conditioning + 2 * D + (config.num_classes + 1) * D
        + L * (12 * D * D + 9 * D + learned) + (2 * D * D + 2 * D if modulated else 2 * D) + out * (D + 1)
    )  # fmt: skip  # (16.15)
    return Complexity(macs, _norms(config), trainable, T * D)


def _norms(config: DiTConfig) -> int:
    """Numbers that the LayerNorms normalise: those of every block, and of the last layer."""
    each = 3 if config.block == "cross-attention" else 2
    within = config.tokens + 2 if config.block == "in-context" else config.tokens
    return (each * config.depth * within + config.tokens) * config.width


def encoder_layer(tokens: int, width: int) -> Complexity:
    """The counts of one encoder layer of a Transformer, by formula.

    Source: derived in chapter 3.
    """
    T, D = tokens, width
    macs = 12 * T * D**2 + 2 * T**2 * D  # (3.15)
    return Complexity(macs, norms=2 * T * D, trainable=12 * D**2 + 13 * D, fixed=0)  # (3.16)


def vit(config: ViTConfig) -> int:
    """Multiply–adds of one image in a ViT, by formula.

    Source: derived in chapter 7.
    """
    T, D = config.tokens - 1, config.width
    patch = config.patch**2 * config.channels
    return T * patch * D + config.depth * encoder_layer(T + 1, D).macs + D * config.num_classes  # (7.5)
