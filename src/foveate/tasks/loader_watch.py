"""How much of a training's time goes into waiting for pictures, and when that deserves a word to the user."""

import time
from collections.abc import Iterable, Iterator

from foveate.tasks.base import Batch

STARTING_STEPS = 5  # during which the reading processes start
MOST_STEPS = 50
TOO_MUCH = 0.25


class LoaderWatch:
    """The clock of the loop's steps, each from asking for its batch to the end of its weight update; what lies between steps, such as
    evaluations and checkpoints, is not counted.

    Where pictures are read by the training process itself, its reading is the waiting.

    Args:
        steps_per_epoch: the waiting is judged once, after an epoch or 50 steps if these are fewer, and never over the first steps.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self.judged_after = min(MOST_STEPS, max(2 * STARTING_STEPS, steps_per_epoch))
        self.steps = 0
        self.asked = 0.0
        self.waited = 0.0  # in the step that runs; the loop sets it to that of the process that waited longest
        self.all_waited = self.all_seconds = 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; a step begins with the asking for one."""
        stream = iter(batches)
        while True:
            self.asked = time.monotonic()
            batch = next(stream, None)
            if batch is None:
                return
            self.waited = time.monotonic() - self.asked
            yield batch

    def end_step(self) -> tuple[float, float]:
        """Seconds waited in the step that ends now, and seconds that it took."""
        seconds = time.monotonic() - self.asked
        self.steps += 1
        waited = min(self.waited, seconds)
        if self.steps > STARTING_STEPS:
            self.all_waited += waited
            self.all_seconds += seconds
        return waited, seconds

    def complaint(self) -> float | None:
        """The share of the time that was spent waiting, at the one step where it is judged and if it is too much; otherwise None."""
        if self.steps != self.judged_after:
            return None
        share = self.all_waited / self.all_seconds
        return share if share > TOO_MUCH else None
