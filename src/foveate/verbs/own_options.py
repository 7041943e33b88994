"""Options that only models of one task understand: with another model they are refused, as nothing would come of them."""

from collections.abc import Collection, Mapping
from pathlib import Path

from foveate.errors import UserError

WHAT_IT_DOES = {"classify": "classifies", "detect": "detects", "segment": "segments"}


def require_own_options(given: Collection[str], own: Mapping[str, Collection[str]], task: str, source: Path) -> None:
    """`UserError` for options that a model of this task has no use for.

    Args:
        given: names of the options that were given, of those that stand in `own` at all.
        own: task -> names of the options that belong to it.
        task: the model's.
        source: where the model came from.
    """
    foreign = [name for name in given if name not in own[task]]
    if foreign:
        expected = f"of such options only {_flags(own[task])}" if own[task] else "no such option"
        found = f"{_flags(foreign)} for a model that {WHAT_IT_DOES[task]}"
        raise UserError(f"{source}: found {found}, expected {expected}; leave {'them' if len(foreign) > 1 else 'it'} out")


def _flags(names: Collection[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
