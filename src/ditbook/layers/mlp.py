"""The two-layer perceptron inside every Transformer block."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def _tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


# Three ways to compute GELU: exactly (ViT), by a tanh (GPT-2, DiT), by a logistic function (OpenAI's CLIP).
GELU: dict[str, Callable[[Tensor], Tensor]] = {"exact": F.gelu, "tanh": _tanh, "quick": _quick}


class MLP(nn.Module):
    """Linear → GELU → Linear on each token: (B, T, D) → (B, T, D), with a hidden width of `ratio`·D.

    Args:
        width: D.
        ratio: width of the hidden layer over D.
        gelu: which of `GELU`.

    Raises:
        ValueError: no such GELU.

    Source: Vaswani et al. 2017, section 3.3; Hendrycks & Gimpel 2016 for GELU and its two approximations.
    """

    def __init__(self, width: int, ratio: int = 4, gelu: str = "tanh") -> None:
        super().__init__()
        if gelu not in GELU:
            raise ValueError(f"no GELU {gelu!r}; there are {', '.join(GELU)}")
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)
        self.gelu = GELU[gelu]

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token alone."""
        return self.fc2(self.gelu(self.fc1(x)))  # (3.8)
