"""The processor's cores that this process may use, and how many of them read pictures."""

import os

MOST_READERS = 8


def usable_cores() -> int:
    """Cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reading_processes(sharing: int = 1) -> int:
    """How many processes read pictures for each of `sharing` that divide the cores among them: its share, at least 1 and at most 8."""
    return max(1, min(MOST_READERS, usable_cores() // sharing))
