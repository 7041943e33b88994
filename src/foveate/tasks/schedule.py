"""The learning rate over a training: straight warm-up, fall, cool-down, as a function of the share of the training that is done."""

import math
from dataclasses import dataclass

from foveate.tasks.settings import TrainSettings

POLY_POWER = 0.9
STEP_FACTOR = 0.1


@dataclass(frozen=True)
class Schedule:
    """Learning rate by progress p, the share of the training that is done, 0 to 1.

    `p < warmup`: a straight line from `start` to `peak`. From `1 - cooldown` on `floor`. Between, with q = p / (1 - cooldown), by `kind`:
    "cosine" `floor + (peak - floor) (1 + cos(pi q)) / 2`, "poly" `floor + (peak - floor) (1 - q)^0.9`, "steps" `peak` times a tenth for
    each of the `milestones` passed. The clock of these starts at zero together with the warm-up, as in the published trainings, so that
    the rate steps down a little (by 1% for 20 of 300 epochs of the cosine) where the warm-up ends.
    """

    peak: float
    floor: float
    start: float
    warmup: float
    cooldown: float
    kind: str = "cosine"
    milestones: tuple[float, ...] = ()

    def learning_rate(self, progress: float) -> float:
        if progress < self.warmup:
            return self.start + (self.peak - self.start) * progress / self.warmup
        if self.kind == "steps":
            return self.peak * STEP_FACTOR ** sum(progress >= milestone for milestone in self.milestones)
        done = progress / (1.0 - self.cooldown)
        if done >= 1.0:
            return self.floor
        share = (1.0 - done) ** POLY_POWER if self.kind == "poly" else (1.0 + math.cos(math.pi * done)) / 2.0
        return self.floor + (self.peak - self.floor) * share


def peak_learning_rate(settings: TrainSettings, pictures_per_update: int) -> float:
    """The learning rate after the warm-up: linear in the pictures of one weight update, all processes and accumulated batches together."""
    if settings.lr_reference_batch == 0:
        return settings.lr
    return settings.lr * pictures_per_update / settings.lr_reference_batch


def make_schedule(settings: TrainSettings, pictures_per_update: int) -> Schedule:
    """The schedule of `settings`. A scaled peak below `min_lr` or `warmup_lr` pulls these down with it: the rate never rises late."""
    peak = peak_learning_rate(settings, pictures_per_update)
    return Schedule(
        peak=peak,
        floor=min(settings.min_lr, peak),
        start=min(settings.warmup_lr, peak),
        warmup=settings.fitting_warmup_epochs / settings.total_epochs,
        cooldown=settings.cooldown_epochs / settings.total_epochs,
        kind=settings.schedule,
        milestones=tuple(epoch / settings.total_epochs for epoch in settings.step_epochs),
    )


def progress(step: int, total_steps: int, minutes: float, max_minutes: float) -> float:
    """Share of the training that is done, 0 to 1: by steps, or by the clock where that is further on (`max_minutes` 0: no clock).

    A training that its time ends early has thus run through its whole schedule.
    """
    by_steps = step / total_steps
    by_clock = minutes / max_minutes if max_minutes > 0 else 0.0
    return min(1.0, max(by_steps, by_clock))
