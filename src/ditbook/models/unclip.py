"""The decoder of unCLIP: a Diffusion Transformer that is given CLIP's vector of an image, and makes such an image.

Letters: `B` batch, `C` channels of the image (or latent), `T` tokens, `E` tokens of the vector, `D` width, `J` width of
CLIP's space.
Source: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents", section 2.1, without
its caption; the network is the DiT of Peebles & Xie 2023.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook.layers.adaln import AdaLNZeroBlock, FinalLayer
from ditbook.layers.checks import check_multiple, check_per_sample, check_positive, check_range, check_rows, check_types
from ditbook.layers.directions import scaled
from ditbook.layers.embeddings import TimestepEmbedding, sincos_2d
from ditbook.layers.patches import PatchEmbed, unpatchify


@dataclass(frozen=True, kw_only=True)
class UnCLIPDecoderConfig:
    """A decoder. The defaults are those of the shapes of chapter 14.

    Raises:
        ValueError: a size that is not positive, sizes that do not divide one another, a dropout outside 0 to 1.
    """

    size: int = 8  # side of the square latent (or image)
    channels: int = 4  # C
    patch: int = 2  # p
    width: int = 128  # D
    depth: int = 6
    heads: int = 4
    joint: int = 64  # J
    extra: int = 4  # E
    dropout: float = 0.1  # fraction of the vectors that are replaced by the null vector in training

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "size", "channels", "patch", "width", "depth", "heads", "joint", "extra")
        check_multiple("size", self.size, "patch", self.patch)
        check_multiple("width", self.width, "heads", self.heads)
        check_multiple("width", self.width, "sines and cosines of two axes:", 4)
        check_range(self, "dropout", high=1)


class UnCLIPDecoder(nn.Module):
    """Noisy image, timestep, CLIP's vector of the clean image → what the process predicts.

    The vector is added to the timestep's, and E tokens that are made of it stand before those of the image.
    """

    pos_embed: Tensor

    def __init__(self, config: UnCLIPDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEmbed(config.size, config.channels, config.patch, width)
        self.register_buffer("pos_embed", sincos_2d(width, config.size // config.patch).float(), persistent=False)
        self.time_embed = TimestepEmbedding(width)
        self.vector = nn.Linear(config.joint, width)
        self.extra = nn.Linear(config.joint, config.extra * width)
        self.null = nn.Parameter(torch.zeros(config.joint))  # stands for no vector
        self.blocks = nn.ModuleList(AdaLNZeroBlock(width, config.heads) for _ in range(config.depth))
        self.final = FinalLayer(width, config.patch**2 * config.channels)
        self.initialize()

    def initialize(self) -> None:
        """As for the DiT: Xavier for the linear maps; the modulations and the last map start at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, AdaLNZeroBlock | FinalLayer):
                nn.init.zeros_(module.modulation.weight)
        nn.init.zeros_(self.final.linear.weight)

    def null_condition(self, embedding: Tensor) -> dict[str, Tensor]:
        """The condition without a vector, for guidance: (B, J) → the null vector in the place of each."""
        return {"embedding": self.null.expand_as(embedding)}

    def forward(self, x: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """Predict.

        Args:
            x: noisy images, (B, C, size, size).
            t: timesteps of the training process, (B,).
            embedding: CLIP's unit vectors of the clean images, (B, J).

        Returns:
            (B, C, size, size).

        Raises:
            ValueError: wrong shapes, or images of whole numbers.
        """
        check_per_sample(t, len(x), "timesteps")
        check_rows(embedding, len(x), self.config.joint, "vectors")
        z = scaled(embedding)
        c = F.silu(self.time_embed(t) + self.vector(z))  # (B, D)  # (14.3)
        extra = self.extra(z).unflatten(1, (self.config.extra, -1))  # (B, E, D)
        tokens = torch.cat([extra, self.patch_embed(x) + self.pos_embed], dim=1)  # (B, E + T, D)
        for block in self.blocks:
            tokens = block(tokens, c)
        tokens = self.final(tokens[:, self.config.extra :], c)  # (B, T, p·p·C)
        return unpatchify(tokens, self.config.patch, self.config.channels)
