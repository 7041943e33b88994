"""Keeping watch over a training: a loss that is not finite stops every process at once and names where it began."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.distributed
from lightning.fabric import Fabric
from torch import Tensor, nn

from foveate.errors import UserError


def gather_numbers(fabric: Fabric, *values: float) -> list[list[float]]:
    """The values of every process, in the order of their ranks, the same list on each of them."""
    if fabric.world_size == 1:
        return [list(values)]
    width = torch.float32 if fabric.device.type == "mps" else torch.float64  # which mps has not
    own = torch.tensor(values, dtype=width, device=fabric.device)
    everyones = [torch.empty_like(own) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(everyones, own)
    return torch.stack(everyones).tolist()


def first_non_finite(module: nn.Module, run: Callable[[], Any]) -> str | None:
    """Run `run()`, which calls `module`, and say which submodule was the first to give a value that is not finite, or None.

    The sentence also says whether the submodule's weights or its input were already broken.
    """
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(_describe(name, layer, inputs))

        return hook

    handles = [layer.register_forward_hook(look(name)) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _describe(name: str, layer: nn.Module, inputs: Any) -> str:
    sentence = f"the first module with a value that is not finite is '{name}' ({type(layer).__name__})"
    broken = [own for own, value in layer.named_parameters() if not _finite(value)]
    if broken:
        return f"{sentence}, whose weights were so already ({', '.join(broken)}): the gradients before were too large"
    return f"{sentence}, {'though its input was finite' if _finite(inputs) else 'and its input was so already'}"


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(value.isfinite().all()) if value.is_floating_point() else True
    return all(_finite(item) for item in value) if isinstance(value, tuple | list) else True


def stop_non_finite(fabric: Fabric, step: int, images: Tensor, finding: str | None) -> NoReturn:
    """Raise the same `UserError` on every process; all processes must call it together, each with its own finding."""
    if not _finite(images):
        finding = "the pictures themselves hold values that are not finite"
    everyones = [fabric.broadcast(finding, src=rank) for rank in range(fabric.world_size)]
    rank, named = next(((rank, text) for rank, text in enumerate(everyones) if text), (0, "every module's output is finite again"))
    where = f" of process {rank}" if fabric.world_size > 1 else ""
    cure = "lower --lr, set --clip-grad 1, or use --precision fp32"
    raise UserError(f"the loss is not finite at step {step}{where}: {named}; expected a finite loss: {cure}")
