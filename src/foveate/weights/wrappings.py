"""Where the weights stand inside a checkpoint: bare, or under one of the keys that training scripts use."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from foveate.weights.pickles import Call, UnreadableError

WRAPPERS = ("state_dict_ema", "state_dict", "model")  # the averaged weights are the published ones, so they come first
MAX_DEPTH = 4
PARALLEL_PREFIX = "module."


@dataclass(frozen=True)
class State:
    """The dictionary of recorded tensors, the keys that lead to it ("bare" for none), and the names of its other entries."""

    tensors: dict[str, Call]
    source: str
    dropped: tuple[str, ...]


def unwrap(tree: Any, makers: Collection[str]) -> State:
    """Finds the weights in `tree`, without the `module.` that data-parallel training puts before every name.

    Args:
        tree: the checkpoint, as `read_pickle` gives it.
        makers: paths of the calls that make tensors in this layout.

    Raises:
        UnreadableError: where there are none.
    """
    keys: list[str] = []
    while len(keys) < MAX_DEPTH and isinstance(tree, dict):
        inner = [key for key in WRAPPERS if isinstance(tree.get(key), dict) and tree[key]]
        if not inner:
            break
        keys.append(inner[0])
        tree = tree[inner[0]]
    entries = tree if isinstance(tree, dict) else {}
    tensors = {name: value for name, value in entries.items() if isinstance(value, Call) and value.path in makers and isinstance(name, str)}
    if not tensors:
        found = f"a dictionary with {', '.join(str(key)[:40] for key in list(entries)[:5])}" if entries else f"a {type(tree).__name__}"
        raise UnreadableError(f"found {found}, expected a dictionary of tensors, bare or under {', '.join(WRAPPERS)}")
    dropped = tuple(str(name) for name in entries if name not in tensors)
    while all(name.startswith(PARALLEL_PREFIX) for name in tensors):
        tensors = {name.removeprefix(PARALLEL_PREFIX): value for name, value in tensors.items()}
    return State(tensors, ".".join(keys) or "bare", dropped)
