"""The device that a user names, or the best that there is."""

import torch

from foveate.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called `name`, such as "cuda:1"; "auto" is this machine's accelerator, or the processor where it has none.

    Nothing is put onto the device.

    Raises:
        UserError: where this machine has no such device.
    """
    there = accelerators()
    known = {"auto": there[0] if there else "cpu", "cpu": "cpu", **{one: one for one in there}}
    known |= {one.partition(":")[0]: one for one in reversed(there)}  # "cuda" is its first
    if name not in known:
        raise UserError(f"device: found {name!r}, expected {' or '.join(('auto', 'cpu', *there))}, as on this machine")
    return torch.device(known[name])


def accelerators() -> list[str]:
    """What this machine can compute on beside its processor, such as "cuda:0"."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [] if kind is None else [f"{kind.type}:{index}" for index in range(torch.accelerator.device_count())]
