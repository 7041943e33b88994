"""What all tests of joined modules begin with: a joined copy, and random numbers to give it."""

import copy
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

AROUND_BLOCKS = "; 4 embeddings joined: one native pass; 1 stem joined: one native pass"
"""What is said of an optimized FViT beside its blocks."""


def joined_copy(kind: Any, module: nn.Module) -> Any:
    """A copy of a module that fits a joined `kind`, become one."""
    module = copy.deepcopy(module)
    assert kind.fits(module)
    kind.join(module)
    return module


def random_map(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_products(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType, native: bool) -> None:
    """For these modules products in bfloat16 are native, or PyTorch's, whatever this processor is the faster with."""
    for module in modules:
        monkeypatch.setattr(module, "has_products", lambda dtype: dtype == torch.float32 or native)


def assert_threads_change_no_bit(module: nn.Module, x: Tensor) -> None:
    """One, two and three threads give the same numbers."""
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(module(x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0]) for one in found)
