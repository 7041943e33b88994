"""What the training loop asks of a task: losses for training, figures for evaluation. The loop knows nothing else of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from lightning.fabric import Fabric
from torch import Tensor

from foveate.data.examples import Examples

Batch = Mapping[str, Tensor]
Forward = Callable[..., Any]


class Results(Protocol):
    """What a model said to the held-out pictures, each exactly once."""

    def __len__(self) -> int:
        """Pictures seen."""
        ...

    def figures(self) -> dict[str, float]:
        """Figures by name; at least one of `metric_names.HEADLINES` among them."""
        ...


class Task(Protocol):
    """One kind of training. All randomness comes from the generator it is handed, or from torch's, which the loop seeds at every step."""

    @property
    def examples(self) -> Examples:
        """The training pictures, made ready."""
        ...

    @property
    def chances(self) -> npt.NDArray[np.float64] | None:
        """How often each of them is drawn, relative to the others; None: once an epoch."""
        ...

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """Which of them may share a batch, one number each; None: all."""
        ...

    def parts(self, batch: Batch, count: int, random: np.random.Generator) -> Sequence[Batch]:
        """The batch of one weight update, made ready for training and cut into `count` parts that fit into memory."""
        ...

    def loss(self, forward: Forward, part: Batch) -> Tensor:
        """Mean training loss of a part, a scalar."""
        ...

    def results(self, fabric: Fabric, forward: Forward) -> Results:
        """What the model, in evaluation mode, says to the held-out data, equal on every process."""
        ...
