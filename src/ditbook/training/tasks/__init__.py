"""What weights are trained on, by which loss, and how the trained model is measured: one class for each kind.

A task is a frozen dataclass whose fields are the keys of its recipes. It moves nothing to a device: `train` does.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ditbook.layers.checks import check_types
from ditbook.pipeline import Pipeline
from ditbook.training.loop import Batch, Context, Data

M = TypeVar("M", bound=nn.Module)


class Task(ABC, Generic[M]):
    """Data, loss and metric of a kind of recipe, for models of type M.

    Raises:
        ValueError: a field is not of its type, or a number is out of its range.
    """

    splits: ClassVar[bool] = True  # processes can share a batch: the loss is a mean over its rows and changes nothing
    anywhere: ClassVar[bool] = False  # `evaluate` works on the device of the model, and not on the CPU alone

    def __post_init__(self) -> None:
        check_types(self)

    @abstractmethod
    def data(self) -> Batch:
        """All the data to train on: tensors of equal length on the CPU."""

    def start(self, model: M) -> None:
        """Load the parameters that the training begins with; by default they stay as they were initialized."""

    def batches(self, model: M) -> Data:
        """Where batches come from; by default from `data`. A task in which the model writes its own data has others."""
        return self.data()

    def example(self, model: M) -> Batch:
        """Two rows of the data, to count what a step costs; their numbers do not matter. The model may be on meta."""
        small: Task[M] = replace(self, layouts=20) if hasattr(self, "layouts") else self  # type: ignore[type-var]
        data = small.batches(model if type(self).batches is Task.batches else type(model)(model.config))
        batch = data(torch.Generator()) if callable(data) else data
        return {name: tensor[:2] for name, tensor in batch.items()}

    @abstractmethod
    def loss(self, model: M, batch: Batch, context: Context) -> Tensor:
        """The loss of a batch, a scalar."""

    def by_time(self, model: M, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """The loss of a batch in each quarter of the time, (4,), if there is one."""
        return None

    def generator(self, model: M) -> Pipeline | None:
        """From noise to images, on the device of the model, if it makes images."""
        return None

    @abstractmethod
    def evaluate(self, model: M) -> dict[str, float]:
        """Metrics of a trained model, on the CPU or `anywhere`, by name, on data that it was not trained on."""

    def after_step(self, model: M) -> None:
        """Project parameters into their range after a step of the optimizer; by default nothing."""
