"""Whether somebody wants to see every layer and operation of a pass, so that none may be left out or joined with another."""

import torch
from torch.nn.modules.module import _has_any_global_hook


def is_recorded() -> bool:
    """Whether somebody compiles, exports or traces what a module does."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def is_watched() -> bool:
    """Whether somebody watches while it is computed: hooks on all modules, derivatives, transforms."""
    if _has_any_global_hook() or torch.autograd.forward_ad._current_level >= 0:
        return True
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._functorch.peek_interpreter_stack() is not None
