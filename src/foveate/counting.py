"""How large a model is, how much it computes and how much it reads and writes for it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

FREE = ("aten::empty", "aten::new_empty", "aten::_unsafe_view")
"""Operations that neither read nor write, besides views."""

OVERWRITING = ("aten::copy_", "aten::fill_", "aten::zero_")
"""Operations that do not read what they are to change."""


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Count the numbers in the model's parameters: frozen tables (positions, random features) included, buffers (running means) not.

    Args:
        model: any module, on any device.
        trainable_only: leave the frozen ones out.
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable_only)


def count_macs(model: nn.Module, size: tuple[int, int] = (224, 224), in_chans: int = 3) -> int:
    """Count the multiply-accumulates of one forward pass in evaluation, for one picture of `size` = (H, W) pixels.

    Counted are convolutions, linear layers, matrix products and attention (both of its products): half of what PyTorch's FlopCounterMode
    reports; and what a module says in `generation_macs` of the kernels that it makes anew in every pass, as Gabor filters do. Not counted
    is what is linear in the map's size: norms, activations, softmax, pooling, additions.

    Nothing is computed or allocated: the pass runs on tensors that have a shape and no content. The model may therefore stand on the meta
    device (`with torch.device("meta"): model = create_model(name)`), where building it costs nothing either.

    Args:
        model: any classifier or backbone, on any device; it is left as it was.
        size: H and W in pixels.
        in_chans: channels of the picture.
    """
    counter = FlopCounterMode(display=False)
    _pass_without_numbers(model, (1, in_chans, *size), counter)
    return counter.get_total_flops() // 2 + sum(getattr(module, "generation_macs", 0) for module in model.modules())


def count_moved(model: nn.Module, size: tuple[int, int] = (224, 224), in_chans: int = 3, *, batch: int = 1) -> int:
    """Count the numbers that a forward pass in evaluation reads and writes, where every operation does so for itself.

    Each of PyTorch's operations counts with the tensors that it is given, weights among them, and those that it makes; views cost nothing.
    It is what the plain model asks of the memory: less reaches it where numbers stay in the cache or operations are joined. Nothing is
    computed, as in `count_macs`, whose arguments these are.

    Args:
        batch: pictures at once; weights are read once for all of them.
    """
    counter = _Moved()
    _pass_without_numbers(model, (batch, in_chans, *size), counter)
    return counter.numbers


def _pass_without_numbers(model: nn.Module, shape: tuple[int, ...], counter: AbstractContextManager[Any]) -> None:
    """A forward pass in evaluation, watched by a counter, on tensors that have a shape and no content."""
    training = model.training
    with FakeTensorMode(), torch.enable_grad():  # without gradients, products are added in place, which PyTorch's counter does not know
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            for named in (model.named_parameters(), model.named_buffers())
            for name, tensor in named
        }
        picture = torch.empty(*shape, device="cpu")
        with counter:
            functional_call(model.eval(), tensors, (picture,))
    model.train(training)


class _Moved(TorchDispatchMode):
    """Adds up the numbers of the tensors that operations are given and make."""

    numbers = 0

    def __torch_dispatch__(
        self, func: OpOverload[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        written = sum(map(_numbers, tree_leaves(made)))  # 0 where somebody only asks for a tensor's device
        if written and not func.is_view and not func.name().startswith(FREE):
            given = args[1:] if func.name().startswith(OVERWRITING) else args
            self.numbers += written + sum(map(_numbers, tree_leaves((given, kwargs))))
        return made


def _numbers(value: Any) -> int:
    """Of a tensor those that lie in memory, each once: an axis along which it is only expanded counts as one."""
    if not isinstance(value, Tensor):
        return 0
    return prod(length for length, stride in zip(value.shape, value.stride(), strict=True) if stride)
