"""From finished trainings to a row per model, and to a sentence that says which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import mean, stdev

from foveate.comparing.paired import PairedTest, paired_test
from foveate.comparing.trials import Outcome
from foveate.metric_names import HEADLINES

CHANCE = 0.05
SPREADS = 2.0  # standard errors of a difference


@dataclass(frozen=True)
class Row:
    """One model.

    Args:
        model: its name.
        figures: of each training on the held-out pictures, shares of 1.
        parameters: frozen tables included, with the classifier or head.
        training_minutes: mean over the trainings, evaluations included.
        steps: weight updates, mean over the trainings.
        macs: multiply-accumulates of the backbone's forward pass over one picture; None where speed was not measured, as those below.
        images_per_second: of the backbone's inference, median of rounds in turns with the other models.
        peak_bytes: largest memory of that inference.
        test: against the best model, picture by picture; None for the best itself and for tasks other than classification.
    """

    model: str
    figures: tuple[float, ...]
    parameters: int
    training_minutes: float
    steps: float
    macs: int | None = None
    images_per_second: float | None = None
    peak_bytes: int | None = None
    test: PairedTest | None = None

    @property
    def mean(self) -> float:
        return mean(self.figures)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the trainings; None for a single one."""
        return stdev(self.figures) if len(self.figures) > 1 else None


def headline(outcomes: Sequence[Outcome]) -> str:
    """The figure that models are compared by: `top1`, `mask_ap` before `box_ap`, or `miou`."""
    found = outcomes[0].evaluation["figures"]
    order = ("top1", "mask_ap", "box_ap", "miou")
    assert set(order) == set(HEADLINES)
    return next(name for name in order if name in found)


def summarise(outcomes: Sequence[Outcome], figure: str) -> list[Row]:
    """A row for each model that has finished a training, the best first; speed is added later."""
    models = dict.fromkeys(outcome.trial.model for outcome in outcomes)
    rows = [_row([outcome for outcome in outcomes if outcome.trial.model == model], figure) for model in models]
    return sorted(rows, key=lambda row: -row.mean)


def _row(own: Sequence[Outcome], figure: str) -> Row:
    return Row(
        model=own[0].trial.model,
        figures=tuple(outcome.evaluation["figures"][figure] for outcome in own),
        parameters=own[0].training["parameters"],
        training_minutes=mean(outcome.training["minutes"] for outcome in own),
        steps=mean(outcome.training["steps"] for outcome in own),
    )


def paired_with(best: str, outcomes: Sequence[Outcome]) -> dict[str, PairedTest]:
    """Each other model tested against the best on the seeds that both have finished; empty for tasks other than classification."""
    found = {}
    for model in dict.fromkeys(outcome.trial.model for outcome in outcomes if outcome.right):
        shared = _seeds(best, outcomes) & _seeds(model, outcomes)
        if model != best and shared:
            found[model] = paired_test(_rights(best, shared, outcomes), _rights(model, shared, outcomes))
    return found


def _seeds(model: str, outcomes: Sequence[Outcome]) -> set[int]:
    return {outcome.trial.seed for outcome in outcomes if outcome.trial.model == model}


def _rights(model: str, seeds: set[int], outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    """By picture, in how many of these trainings the model was right about it; which are held out may depend on the seed."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.trial.model == model and outcome.trial.seed in seeds:
            for picture, right in outcome.right.items():
                counts[picture] = counts.get(picture, 0) + right
    return counts


def alike(best: Row, other: Row, models: int) -> bool:
    """Whether the figures cannot tell `other` from the best.

    By the paired test at 5% divided by the number of comparisons (Bonferroni); for tasks without one, where the means differ by less than
    two standard errors, or where there is but one training.
    """
    if other.test is not None:
        return other.test.p >= CHANCE / (models - 1)
    if best.deviation is None or other.deviation is None:
        return True
    error = hypot(best.deviation / sqrt(len(best.figures)), other.deviation / sqrt(len(other.figures)))
    return best.mean - other.mean < SPREADS * error


def recommend(rows: Sequence[Row]) -> str:
    """The sentence that follows from the rows, the best first: the fastest of those that cannot be told from the best."""
    best, *others = rows
    if not others:
        return f"{best.model} alone was compared: {_share(best)}."
    equals = [row for row in others if alike(best, row, len(rows))]
    choice = max((best, *equals), key=lambda row: row.images_per_second or 0.0)
    if choice is not best:
        text = f"Take {choice.model}: at {_share(choice)} it cannot be told from the best, {best.model} at {_share(best)}{_why(choice)}"
        return f"{text}{_faster(choice, best)}."
    second = others[0]
    if second in equals:
        text = f"Take {best.model}: {_share(best)}; {second.model}, at {_share(second)}, cannot be told from it{_why(second)}"
        return f"{text}{_faster(best, second)}."
    ahead = f"{100 * (best.mean - second.mean):.1f} points ahead of {second.model}{_why(second)}"
    fastest = max(rows, key=lambda row: row.images_per_second or 0.0)
    price = "" if fastest is best else f"; the fastest, {fastest.model}, reaches {_share(fastest)}{_faster(fastest, best)}"
    return f"Take {best.model}: {_share(best)}, {ahead}{price}."


def _share(row: Row) -> str:
    return f"{row.mean:.1%}" + ("" if row.deviation is None else f" ± {100 * row.deviation:.1f}")


def _why(row: Row) -> str:
    """What the judgement rests on."""
    if row.test is not None:
        return f" (p = {row.test.p:.2g} on {row.test.pictures:,} pictures)"
    return " (one training each: the difference may be chance)" if row.deviation is None else ""


def _faster(row: Row, other: Row) -> str:
    """That `row` is faster than `other`, where it is."""
    if not row.images_per_second or not other.images_per_second or row.images_per_second <= other.images_per_second:
        return ""
    return f", and is {row.images_per_second / other.images_per_second:.1f} times as fast"
