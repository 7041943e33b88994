"""The device that a user names, or the best that there is."""

import torch

from foveate.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called `name`, such as "cuda:1"; "auto" is this machine's accelerator, or the processor where it has none.

    Raises:
        UserError: where this machine has no such device.
    """
    there = accelerators()
    if name == "auto":
        name = there[0] if there else "cpu"
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError):
        raise UserError(f"device: found {name!r}, expected {' or '.join(('auto', 'cpu', *there))}, as on this machine") from None


def accelerators() -> list[str]:
    """What this machine can compute on beside its processor, such as "cuda:0"."""
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator()
    return [f"{kind}:{index}" for index in range(torch.accelerator.device_count())] if kind is not None else []
