"""Arguments that are one of a few words."""

from typing import Any, get_args


def check_choice(argument: str, value: object, kind: Any) -> None:
    """ValueError where `value` is none of the words of the Literal type `kind`, naming the `argument`."""
    if value not in get_args(kind):
        raise ValueError(f"{argument}: found {value!r}, expected one of {', '.join(get_args(kind))}")
