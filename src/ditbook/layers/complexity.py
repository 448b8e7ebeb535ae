"""What one forward pass costs, and how many numbers a model stores."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Counts of one forward pass at batch 1.

    `macs` are multiply–adds of matrix products; `norms` one operation for each number that a LayerNorm normalizes.
    """

    macs: int = 0
    norms: int = 0
    trainable: int = 0  # parameters
    fixed: int = 0  # numbers that are stored and not trained: a position table

    def __add__(self, other: "Complexity") -> "Complexity":
        """The counts of both."""
        return Complexity(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def gflops(self) -> float:
        """(macs + norms) / 10⁹: what Peebles & Xie 2023 call Gflops."""
        return (self.macs + self.norms) / 1e9

    @property
    def total(self) -> int:
        """All stored numbers, the position table included."""
        return self.trainable + self.fixed
