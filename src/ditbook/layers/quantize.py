"""Discrete codes with a gradient: Gumbel–softmax, vector quantization, and how much of a codebook is used.

Letters: `B` batch, `K` codes, `D` width of a code, `h w` height and width of a feature map, `N` vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbook import rng

TINY = 1e-20  # added to a uniform number, which may be 0, before its logarithm


def gumbel(shape: torch.Size | tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers of the standard Gumbel distribution, −ln(−ln u), of the given shape."""
    return -torch.log(-torch.log(rng.rand(shape, generator, device) + TINY) + TINY)


def gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator, hard: bool = False) -> Tensor:
    """Sample one of K codes, relaxed: weights that tend to a one-hot sample of softmax(logits) as temperature falls.

    Args:
        logits: (B, K, ...).
        temperature: positive.
        generator: of one uniform number for each logit.
        hard: return the one-hot vector of the largest weight; the gradient is still that of the weights
            (straight-through).

    Returns:
        (B, K, ...), each sums to one over K.

    Raises:
        ValueError: the temperature is not positive.

    Source: Jang et al. 2017, equations 1 and 2 and section 2.2; Maddison et al. 2017.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    noisy = logits + gumbel(logits.shape, generator, logits.device)  # (9.1)
    soft = (noisy / temperature).softmax(dim=1)  # (9.2)
    return straight_through(one_hot(noisy.argmax(dim=1), logits.shape[1]).to(soft), soft) if hard else soft


def straight_through(forward: Tensor, backward: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another of the same shape.

    Source: Bengio et al. 2013, section 4.
    """
    return forward.detach() + (backward - backward.detach())  # (9.3), the difference is 0


def one_hot(tokens: Tensor, codes: int) -> Tensor:
    """Tokens (B, ...) → (B, K, ...), float32."""
    return F.one_hot(tokens, codes).movedim(-1, 1).float()


class VectorQuantizer(nn.Module):
    """A codebook of K vectors; each vector of a feature map is replaced by the nearest one.

    Args:
        codes: K.
        width: D.

    Source: van den Oord et al. 2017, section 3.1.
    """

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(codes, width)  # starts as N(0, 1)

    def similarities(self, z: Tensor) -> Tensor:
        """Minus the squared distance of each vector to each code: (B, D, h, w) → (B, K, h, w)."""
        e = self.codebook.weight  # (K, D)
        products = torch.einsum("bdhw,kd->bkhw", z, e)
        return 2 * products - z.square().sum(dim=1, keepdim=True) - e.square().sum(dim=1)[:, None, None]

    def lookup(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens: (B, h, w) → (B, D, h, w)."""
        return self.codebook(tokens).movedim(-1, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, D, h, w) → their codes with the gradient of `z`, and the mean squared distance in two parts.

        Returns:
            Codes (B, D, h, w), and (2,): the same number twice, with a gradient to the codebook and to `z`.
        """
        codes = self.lookup(self.similarities(z).argmax(dim=1))  # (9.9)
        distances = torch.stack([F.mse_loss(codes, z.detach()), F.mse_loss(z, codes.detach())])  # (9.10)
        return straight_through(codes, z), distances

    @torch.no_grad()
    def replace(self, chosen: Tensor, z: Tensor, generator: torch.Generator) -> None:
        """Put vectors of a feature map in the place of chosen codes, in place; those far from all codes more often.

        A vector is sampled in proportion to its squared distance to the nearest code. All codes: a start from the data.
        Codes that no vector was nearest to: restarts.

        Args:
            chosen: True for codes to replace, (K,).
            z: (B, D, h, w).
            generator: of K numbers.

        Source: Dhariwal et al. 2020 (Jukebox), section 3, for restarts; Arthur and Vassilvitskii 2007 (k-means++), for
        the probabilities.
        """
        vectors = z.movedim(1, -1).flatten(0, -2)  # (N, D)
        reached = (-self.similarities(z).amax(dim=1)).clamp(min=0).flatten().cumsum(dim=0)  # (N,)
        rows = torch.searchsorted(reached, rng.rand(chosen.shape, generator, z.device) * reached[-1])
        rows = rows.clamp(max=len(vectors) - 1)
        self.codebook.weight.copy_(torch.where(chosen[:, None], vectors[rows], self.codebook.weight))


def counts(tokens: Tensor, codes: int) -> Tensor:
    """How often each code occurs among tokens of any shape: (K,)."""
    return torch.bincount(tokens.flatten(), minlength=codes)


def perplexity(counts: Tensor) -> Tensor:
    """The exponential of the entropy of the codes' frequencies: (K,) → a scalar from 1 to K.

    As many codes, used equally often, would have the same entropy.

    Source: van den Oord et al. 2017, whose code reports it.
    """
    p = counts.double() / counts.sum()
    return torch.special.entr(p).sum().exp()  # (9.11)
