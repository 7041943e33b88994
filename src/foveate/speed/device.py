"""Which device is measured."""

import torch

from foveate.errors import UserError


def resolved_device(device: str) -> str:
    """The device that "auto" means (CUDA where there is one, else the processor), or the one named; `UserError` where that is absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"device: found {device!r} ({reason}), expected one that this machine has") from None
    return device
