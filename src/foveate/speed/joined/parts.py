"""What a module consists of, looked at thoroughly only where something has changed since the last time.

Whether native code may take a module's place has to be known in every pass: somebody may have hooked, replaced or resized a layer. Asking
for all of it takes 167 microseconds for a block of FViT, whether all is as it was a fifth of that.
"""

from collections.abc import Callable
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

KEPT = "_parts"
"""The attribute of a module that keeps its `Parts`, or None: there, whatever refers to whom, they go when the module goes."""


class Parts:
    """A module, those within it and their parameters, as they were when this was made, and what was found out about them."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = list(module.parameters())
        self._own, self._modules = vars(module), [(part, type(part)) for part in module.modules()]  # the module itself first
        self._own.setdefault(KEPT, None)
        self._place = list(self._own).index(KEPT)
        attributes = [vars(part) for part, _ in self._modules]
        within = [value for own in attributes for value in list(own.values()) if isinstance(value, dict)]  # other threads may add to it
        self._views = [dictionary.values() for dictionary in (*attributes, *within)]  # of what is there whenever they are looked at
        self._objects = self._objects_now()
        self._tensors = [value for value in self._objects if isinstance(value, Tensor)]
        self._shapes = self._shapes_now()
        self._answers: dict[Callable[[Any], bool], bool] = {}

    def says(self, check: Callable[[Any], bool]) -> bool:
        """What `check` says of the module, asked once: it may read anything but its tensors' numbers, formats and wish for gradients."""
        if check not in self._answers:
            self._answers[check] = check(self._modules[0][0])
        return self._answers[check]

    def are_those_of(self, module: nn.Module) -> bool:
        """Whether classes, attributes, hooks, parameters, buffers and the shapes of these are what they were."""
        if vars(module) is not self._own or not all(type(part) is kind for part, kind in self._modules):
            return False
        now = self._objects_now()
        return len(now) == len(self._objects) and all(map(is_, now, self._objects)) and self._shapes_now() == self._shapes

    def can_be_kept(self) -> bool:
        """Whether nothing of it belongs to a single pass, or changes unseen: weights are parameters, none stands among the attributes."""
        tensors = [tensor for part, _ in self._modules for tensor in list(part._parameters.values()) if tensor is not None]
        if not all(isinstance(tensor, nn.Parameter) and tensor.is_leaf for tensor in tensors):
            return False
        return not any(isinstance(value, Tensor) for part, _ in self._modules for value in list(vars(part).values()))

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the module is another one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def _objects_now(self) -> list[Any]:
        """All attributes but what is kept of the module, and what is in the dictionaries among them."""
        objects = list(chain.from_iterable(self._views))
        objects[self._place : self._place + 1] = ()
        return objects

    def _shapes_now(self) -> list[torch.Size | None]:
        return [None if is_lazy(tensor) else tensor.shape for tensor in self._tensors]


def parts_of(module: nn.Module) -> Parts:
    """The parts of a module, those of the last time where all is as it was.

    Several threads may ask at once: what one of them finds is kept when it is complete.
    """
    parts: Parts | None = vars(module).get(KEPT)
    if parts is None or not parts.are_those_of(module):
        parts = Parts(module)
        vars(module)[KEPT] = parts if parts.can_be_kept() else None
    return parts
