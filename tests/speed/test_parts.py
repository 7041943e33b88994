"""What is known of a module is asked again where anything about it has changed, and only there."""

import copy
import functools
import gc
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foveate.speed.joined.parts import parts_of


def make_module() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.1)))


class Counted:
    """A check that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, module: nn.Module) -> bool:
        self.asked += 1
        return isinstance(module[0], nn.Conv2d)


class Adapter(nn.Linear):
    """Another class of the same attributes."""


def replace_parameter(module: Any) -> None:
    module[0].bias = nn.Parameter(module[0].bias.detach().clone())


def resize_in_place(module: Any) -> None:
    module[2][0].weight.data = torch.zeros(7, 5)


def resize_buffer(module: Any) -> None:
    module[1].running_mean.resize_(9)


CHANGES: dict[str, Callable[[Any], object]] = {
    "training": lambda module: module[2][1].eval(),
    "attribute": lambda module: setattr(module[0], "padding", (0, 0)),
    "rate": lambda module: setattr(module[2][1], "p", 0.2),
    "hook": lambda module: module[2][0].register_forward_hook(lambda *_: None),
    "hook before": lambda module: module.register_forward_pre_hook(lambda *_: None),
    "hook backward": lambda module: module[1].register_full_backward_hook(lambda *_: None),
    "own forward": lambda module: setattr(module[2], "forward", lambda x: x),
    "another class": lambda module: setattr(module[2][0], "__class__", Adapter),
    "another module": lambda module: module.__setitem__(1, nn.BatchNorm2d(4)),
    "one more": lambda module: module[2].append(nn.Identity()),
    "one less": lambda module: module.__delitem__(1),
    "parameter": replace_parameter,
    "no parameter": lambda module: setattr(module[0], "bias", None),
    "shape": resize_in_place,
    "shape of a buffer": resize_buffer,
    "new buffer": lambda module: module[0].register_buffer("table", torch.zeros(1)),
    "array among the attributes": lambda module: setattr(module[0], "array", np.ones(3)),
    "of TorchScript": lambda module: module.__setitem__(1, torch.jit.script(nn.BatchNorm2d(4))),
    "traced": lambda module: module.__setitem__(1, torch.jit.trace(nn.BatchNorm2d(4).eval(), torch.zeros(1, 4, 2, 2))),
    "not yet sized": lambda module: module.__setitem__(1, nn.LazyBatchNorm2d()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen_once(change: str) -> None:
    module, check = make_module(), Counted()
    module[0].array = np.zeros(3)  # comparing two of such a kind says neither yes nor no
    for _ in range(2):
        assert parts_of(module).says(check)
    assert check.asked == 1
    CHANGES[change](module)
    for _ in range(2):
        parts_of(module).says(check)
    assert check.asked >= 2  # what TorchScript made has other objects every time
    assert check.asked == 2 or change in ("of TorchScript", "traced")


def test_weights_that_are_no_parameters_are_asked_for_every_time() -> None:
    module, check = make_module(), Counted()
    bias = module[0].bias.detach()
    del module[0]._parameters["bias"]
    module[0].bias = bias
    for asked in range(1, 4):
        parts_of(module).says(check)
        bias.resize_(asked)
        assert check.asked == asked


def test_sizes_that_come_with_the_first_picture_are_seen() -> None:
    module, check = make_module(), Counted()
    module[1] = nn.LazyBatchNorm2d()
    for pictures in (None, torch.zeros(2, 3, 5, 5), None):
        if pictures is not None:
            module(pictures)
        parts_of(module).says(check)
    assert check.asked == 2


def test_numbers_may_change_unseen() -> None:
    module, check = make_module(), Counted()
    parts = parts_of(module)
    parts.says(check)
    with torch.no_grad():
        module[0].weight.add_(1)
    module.load_state_dict(make_module().state_dict())
    module(torch.zeros(2, 3, 5, 5))
    module[2].double()  # without buffers, which a conversion makes anew
    module.requires_grad_(False)
    assert parts_of(module) is parts
    assert [parameter.dtype for parameter in parts.parameters] == [torch.float32] * 4 + [torch.float64] * 2


def test_checks_and_copies_have_answers_of_their_own() -> None:
    module = make_module()
    assert parts_of(module).says(lambda _: True)
    assert not parts_of(module).says(lambda _: False)
    other = copy.deepcopy(module)
    assert parts_of(other) is not parts_of(module)
    assert all(found is own for found, own in zip(parts_of(other).parameters, other.parameters(), strict=True))


def test_other_parameters_for_one_call_are_taken_for_that_call() -> None:
    module = make_module()
    own = parts_of(module).parameters
    found: list[list[Tensor]] = []
    module.register_forward_pre_hook(lambda *_: found.append(list(parts_of(module).parameters)))
    others = {name: torch.nn.Parameter(value.detach() + 1) for name, value in module.named_parameters()}
    torch.func.functional_call(module, others, (torch.zeros(2, 3, 5, 5),))
    assert all(one is other for one, other in zip(found[0], others.values(), strict=True))
    assert all(one is other for one, other in zip(parts_of(module).parameters, own, strict=True))


def test_what_is_known_keeps_no_module_alive() -> None:
    module = make_module()
    parts_of(module)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


class Watch:
    """Somebody who knows the model and is called by a layer of it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        model[2][0].register_forward_hook(self.seen)
        model.forward = functools.partial(model.forward)

    def seen(self, *_: object) -> None:
        return None


def test_nor_one_that_its_own_parts_refer_to() -> None:
    module = make_module()
    Watch(module)
    module[2].above = [module]
    parts_of(module)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_tensors_of_one_call_are_not_kept() -> None:
    module = make_module()
    module.register_forward_pre_hook(lambda *_: parts_of(module) and None)
    made = {name: parameter * 1.0 for name, parameter in module.named_parameters()}
    gone = [weakref.ref(tensor) for tensor in made.values()]
    torch.func.functional_call(module, made, (torch.zeros(2, 3, 5, 5),)).sum().backward()
    del made
    gc.collect()
    assert not any(tensor() is not None for tensor in gone)


def test_a_shallow_copy_has_parts_of_its_own() -> None:
    module, check = make_module(), Counted()
    parts_of(module).says(check)
    other = copy.copy(module)
    other._modules = dict(module._modules)
    other[1] = nn.Identity()
    assert parts_of(other) is not parts_of(module)
    assert len(parts_of(other).parameters) == len(parts_of(module).parameters) - 2


def test_threads_that_ask_at_once_find_complete_parts() -> None:
    """Thread after thread is let in at every few instructions, so that each meets what others have begun."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(40):
                module, start = make_module(), Barrier(8)
                asked = [pool.submit(ask_when_all_are_there, module, start) for _ in range(8)]
                assert all(answer.result() for answer in asked)
                assert parts_of(module) is parts_of(module)
    finally:
        sys.setswitchinterval(interval)


def ask_when_all_are_there(module: Any, start: Barrier) -> bool:
    start.wait()
    return all(parts_of(module).says(lambda module: isinstance(module[0], nn.Conv2d)) for _ in range(3))


def test_files_and_copies_do_without(tmp_path: Path) -> None:
    module = make_module()
    known = parts_of(module)
    torch.save(module, tmp_path / "module.pt")
    for other in (torch.load(tmp_path / "module.pt", weights_only=False), copy.deepcopy(module)):
        assert vars(other)["_parts"] is None
        assert parts_of(other) is parts_of(other) is not known
    assert parts_of(module) is known
