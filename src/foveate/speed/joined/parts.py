"""What a module consists of, looked at thoroughly only where something has changed since the last time.

Whether native code may take a module's place has to be known in every pass: somebody may have hooked, replaced or resized a layer. Asking
for all of it takes 167 microseconds for a block of FViT, whether all is as it was 25.
"""

from collections.abc import Callable
from itertools import chain
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.parameter import is_lazy

DICTIONARIES = ("_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes of a module that change in their place."""


class Parts:
    """A module, those within it and their parameters, as they were when this was made, and what was found out about them."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = list(module.parameters())
        modules = list(module.modules())
        self._kind, self._kinds = type(module), [(part, type(part)) for part in modules[1:]]  # to refer to it would keep it alive
        self._attributes = [(vars(part), _copied(vars(part))) for part in modules]
        self._tensors = [tensors for part in modules for tensors in (part._parameters, part._buffers)]
        self._of_tensors = self._tensors_now()
        self._shapes = self._shapes_now()
        self._answers: dict[Callable[[Any], bool], bool] = {}

    def says(self, check: Callable[[Any], bool], module: nn.Module) -> bool:
        """What `check` says of the module, asked once: it may read anything but the tensors' numbers, formats and wish for gradients."""
        if check not in self._answers:
            self._answers[check] = check(module)
        return self._answers[check]

    def are_those_of(self, module: nn.Module) -> bool:
        """Whether classes, attributes, hooks, parameters, buffers and the shapes of these are what they were."""
        if type(module) is not self._kind or not all(type(part) is kind for part, kind in self._kinds):
            return False
        try:
            if not all(now == before for now, before in self._attributes):
                return False
        except (RuntimeError, ValueError):  # two tensors among the attributes, or two arrays, are not the same one
            return False
        now = self._tensors_now()
        return len(now) == len(self._of_tensors) and all(map(is_, now, self._of_tensors)) and self._shapes_now() == self._shapes

    def _tensors_now(self) -> list[torch.Tensor | None]:
        return list(chain.from_iterable(tensors.values() for tensors in self._tensors))

    def _shapes_now(self) -> list[torch.Size | None]:
        return [None if tensor is None or is_lazy(tensor) else tensor.shape for tensor in self._of_tensors]


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """A module's attributes, and what changes in its place copied; what TorchScript made of a module has none of that."""
    return attributes | {name: attributes[name].copy() for name in DICTIONARIES if isinstance(attributes.get(name), dict)}


_known: WeakKeyDictionary[nn.Module, Parts] = WeakKeyDictionary()


def parts_of(module: nn.Module) -> Parts:
    """The parts of a module, those of the last time where all is as it was."""
    parts = _known.get(module)
    if parts is None or not parts.are_those_of(module):
        parts = _known[module] = Parts(module)
    return parts
