"""The two-layer perceptron inside every Transformer block."""

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear → GELU → Linear on each token: (B, T, D) → (B, T, D), with a hidden width of `ratio`·D.

    GELU is its tanh approximation, as in GPT-2 and DiT.

    Source: Vaswani et al. 2017, section 3.3; Hendrycks & Gimpel 2016 for GELU.
    """

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token alone."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))  # (3.8)
