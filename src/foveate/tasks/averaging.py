"""A moving average of the weights over the training (EMA), which is usually the better model."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average `a <- d a + (1 - d) w` of all floating-point weights and running statistics w; counters are copied.

    The decay warms up, `d = min(decay, (1 + n) / (10 + n))` at update n, so that the average forgets the random start and helps in short
    trainings too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        mine, theirs = self.module.state_dict(), model.state_dict()
        learnt = [name for name, value in mine.items() if value.is_floating_point()]
        self._learnt = [mine[name] for name in learnt], [theirs[name] for name in learnt]
        self._counters = [(mine[name], theirs[name]) for name in mine.keys() - set(learnt)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights as they stand; it must still be where it was, on the same device."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(*self._learnt, 1.0 - decay)
        for mine, theirs in self._counters:
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        weights: dict[str, Tensor] = state["weights"]
        self.module.load_state_dict(weights)
        self.updates = state["updates"]
