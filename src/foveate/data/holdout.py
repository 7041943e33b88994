"""Holding out a part of every class, the same part wherever and whenever it is done."""

from collections.abc import Iterable, Sequence
from hashlib import sha256


def held_out(names: Sequence[str], classes: Iterable[object], fraction: float, seed: int = 0) -> list[bool]:
    """For every picture whether it belongs to the held-out part: `fraction` of each class, rounded.

    Within its class a picture's rank is the SHA-256 of seed and name, so the choice does not depend on the machine, on library versions or
    on the order of the files, and a picture added later moves few others. A fraction strictly between 0 and 1 leaves every class of two
    or more pictures at least one on each side.
    """
    members: dict[object, list[int]] = {}
    for index, label in enumerate(classes):
        members.setdefault(label, []).append(index)
    chosen = [False] * len(names)
    for indices in members.values():
        count = round(fraction * len(indices))
        if 0 < fraction < 1 and len(indices) > 1:
            count = min(max(count, 1), len(indices) - 1)
        ranked = sorted(indices, key=lambda index: sha256(f"{seed}/{names[index]}".encode()).digest())
        for index in ranked[:count]:
            chosen[index] = True
    return chosen
