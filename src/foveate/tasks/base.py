"""What the training loop asks of a task: losses for training, figures for evaluation. The loop knows nothing else of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from lightning.fabric import Fabric
from torch import Tensor

Batch = Mapping[str, Tensor]
Forward = Callable[[Tensor], Tensor]


class Task(Protocol):
    """One kind of training. All randomness comes from the generator it is handed, or from torch's, which the loop seeds at every step."""

    def parts(self, batch: Batch, count: int, random: np.random.Generator) -> Sequence[Batch]:
        """The batch of one weight update, made ready for training and cut into `count` parts that fit into memory."""
        ...

    def loss(self, forward: Forward, part: Batch) -> Tensor:
        """Mean training loss of a part, a scalar."""
        ...

    def evaluate(self, fabric: Fabric, forward: Forward) -> dict[str, float]:
        """Figures over the held-out data, equal on every process; `loss` and `top1` among them. The model is in evaluation mode."""
        ...
