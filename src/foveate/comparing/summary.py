"""From finished trainings to a row per model, and to a sentence that says which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import mean, stdev
from typing import Any

from foveate.comparing.paired import PairedTest, paired_test
from foveate.comparing.scatter import welch_p
from foveate.comparing.trials import Outcome
from foveate.metric_names import HEADLINES

CHANCE = 0.05
MARGIN = 0.02  # of the figure that may be given away for speed
NOTABLY = 1.2  # times as fast; less is within what rounds on a busy machine vary by


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

    def plain(self) -> dict[str, Any]:
        """All of it by name, mean and deviation included."""
        return {**asdict(self), "mean": self.mean, "deviation": self.deviation}


def headline(outcomes: Sequence[Outcome]) -> str:
    """The figure that models are compared by: `top1`, `mask_ap` before `box_ap`, or `miou`."""
    return next(name for name in reversed(HEADLINES) if name in outcomes[0].evaluation["figures"])


def on_shared_seeds(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of the seeds that every model has finished, if there is one: which pictures are held out may depend on the seed."""
    seeds = [_seeds(model, outcomes) for model in {outcome.trial.model for outcome in outcomes}]
    shared = set.intersection(*seeds) if seeds else set()
    return [outcome for outcome in outcomes if outcome.trial.seed in shared] if shared else list(outcomes)


def same_pictures(outcomes: Sequence[Outcome]) -> bool:
    """Whether all models were measured on the same pictures, seed by seed."""
    measured = {(one.trial.seed, one.evaluation["split"], one.evaluation["pictures"], frozenset(one.right)) for one in outcomes}
    return len(measured) == len({seed for seed, *_ in measured})


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


def chance(best: Row, other: Row) -> float | None:
    """How often chance alone would set `other` as far from the best: the larger p of the test over pictures and of that over trainings.

    None where there is neither test.
    """
    pictures, trainings = other.test.p if other.test is not None else None, _trainings_p(best, other)
    return max((p for p in (pictures, trainings) if p is not None), default=None)


def _trainings_p(best: Row, other: Row) -> float | None:
    return None if best.deviation is None or other.deviation is None else welch_p(best.figures, other.figures)


def asked_for(models: int) -> float:
    """Below which p models are told apart: 5%, divided by the number of pairs among them, since the best was found by looking."""
    return CHANCE / max(1, comb(models, 2))


def alike(best: Row, other: Row, models: int) -> bool:
    """Whether the figures cannot tell `other` from the best: where the pictures, or the scatter over trainings, leave it to chance.

    Without a test nothing can be told.
    """
    p = chance(best, other)
    return p is None or p >= asked_for(models)


def recommend(rows: Sequence[Row]) -> str:
    """The sentence that follows from the rows, the best first.

    That is the best, or a notably faster one that cannot be told from it and is within two points of it.
    """
    best, *others = rows
    if not others:
        return f"{best.model} alone was compared: {_share(best)}."
    equals = [row for row in others if alike(best, row, len(rows))]
    near = [row for row in equals if row.mean >= best.mean - MARGIN and _times(row, best) >= NOTABLY]
    if near:
        choice = max(near, key=lambda row: _times(row, best))
        beside = f"the best, {best.model} at {_share(best)}{_why(choice, best, len(rows))}"
        return f"Take {choice.model}: at {_share(choice)} it cannot be told from {beside}, and is {_times(choice, best):.1f} times as fast."
    second = others[0]
    why = _why(second, best, len(rows))
    if second in equals:
        slower = _times(best, second)
        speed = f", but {best.model} is {slower:.1f} times as fast" if slower >= NOTABLY else ""
        return f"Take {best.model}: {_share(best)}. {second.model}, at {_share(second)}, cannot be told from it{why}{speed}."
    ahead = f"{100 * (best.mean - second.mean):.1f} points ahead of {second.model}{why}"
    fastest = max(others, key=lambda row: _times(row, best))
    times = _times(fastest, best)
    price = f"; the fastest, {fastest.model}, reaches {_share(fastest)} and is {times:.1f} times as fast" if times >= NOTABLY else ""
    return f"Take {best.model}: {_share(best)}, {ahead}{price}."


def _share(row: Row) -> str:
    return f"{row.mean:.1%}" + ("" if row.deviation is None else f" ± {100 * row.deviation:.1f}")


def _why(row: Row, best: Row, models: int) -> str:
    """What the judgement rests on."""
    trainings = _trainings_p(best, row)
    reasons = [] if row.test is None else [f"p = {row.test.p:.2g} on {row.test.pictures:,} pictures"]
    reasons += [] if trainings is None else [f"p = {trainings:.2g} over the trainings"]
    if reasons and alike(best, row, models):
        reasons.append(f"below {asked_for(models):.2g} is asked for")
    single = [row.deviation is None, best.deviation is None]
    if any(single):
        reasons.append("one training each: the difference may be chance" if all(single) else "one training of one of them")
    return f" ({'; '.join(reasons)})" if reasons else ""


def _times(row: Row, other: Row) -> float:
    """How many times as fast as `other`; 0 where that was not measured."""
    return row.images_per_second / other.images_per_second if row.images_per_second and other.images_per_second else 0.0
