"""Learning to learn: the value of each key, under a mapping that a sequence shows by its pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ditbook.data import mappings
from ditbook.layers.checks import check_positive
from ditbook.models.gpt import GPT
from ditbook.objectives.tokens import next_token_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

NOTHING = -1  # the target that does not count
EXAMPLES = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class FollowMappings(Task[GPT]):
    """Predict each value from the pairs before it."""

    sequences: int  # mappings to train on
    pairs: int  # of a sequence

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sequences", "pairs")

    def data(self) -> Batch:
        """Sequences of `pairs` pairs, each under a mapping of its own."""
        generator = torch.Generator().manual_seed(0)
        return {"tokens": mappings.sequences(self.sequences, self.pairs, generator)}

    def loss(self, model: GPT, batch: Batch, context: Context) -> Tensor:
        """Cross-entropy of the values; the keys are random, and not predicted."""
        tokens = batch["tokens"]
        targets = torch.where(tokens < mappings.SYMBOLS, NOTHING, tokens)
        return next_token_loss(model(tokens[:, :-1]), targets[:, 1:], pad=NOTHING)

    @torch.no_grad()
    def evaluate(self, model: GPT) -> dict[str, float]:
        """Accuracy for each number of examples."""
        return {f"accuracy after {k} examples, 2,000 new mappings": accuracy(model, k, 2000) for k in EXAMPLES}


@torch.no_grad()
def accuracy(model: GPT, examples: int, count: int) -> float:
    """Fraction of `count` new prompts whose value is the most probable token."""
    tokens, value = mappings.prompts(count, examples, torch.Generator().manual_seed(1 + examples))
    return (model(tokens)[:, -1].argmax(dim=-1) == value).double().mean().item()
