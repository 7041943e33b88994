"""Rows from outcomes, and the sentence that follows from rows."""

from pathlib import Path

import pytest

from foveate.comparing.paired import PairedTest
from foveate.comparing.summary import Row, alike, headline, on_shared_seeds, paired_with, recommend, same_pictures, summarise
from foveate.comparing.trials import Outcome, Trial


def outcome(model: str, seed: int, right: dict[str, bool], **figures: float) -> Outcome:
    figures = figures or {"loss": 1.0, "top1": sum(right.values()) / len(right)}
    training = {"parameters": 1000, "minutes": 1.0 + seed, "steps": 10}
    evaluation = {"figures": figures, "split": "test", "pictures": len(right)}
    return Outcome(Trial(model, seed, Path(model)), training, evaluation, right, [])


def rights(*right: str, of: str = "abcd") -> dict[str, bool]:
    return {name: name in right for name in of}


def test_rows_are_means_over_trainings_the_best_first() -> None:
    outcomes = [
        outcome("poor", 0, rights("a")),
        outcome("good", 0, rights("a", "b")),
        outcome("poor", 1, rights("b")),
        outcome("good", 1, rights("a", "b", "c", "d")),
    ]
    good, poor = summarise(outcomes, headline(outcomes))
    assert (good.model, good.mean, good.deviation) == ("good", 0.75, pytest.approx(0.125**0.5))
    assert (poor.mean, poor.deviation, poor.training_minutes, poor.steps) == (0.25, 0.0, 1.5, 10)
    assert summarise(outcomes[:1], "top1")[0].deviation is None


def test_pictures_are_paired_over_the_seeds_that_both_have_finished() -> None:
    outcomes = [
        outcome("best", 0, rights("a", "b", of="ab")),
        outcome("best", 1, rights("c", of="bc")),
        outcome("other", 0, rights("a", of="ab")),
        outcome("other", 1, rights("b", "c", of="bc")),
        outcome("other", 2, rights(of="xy")),
    ]
    test = paired_with("best", outcomes)["other"]
    assert (test.pictures, test.wins, test.losses) == (3, 0, 0)  # b: once each
    assert paired_with("best", outcomes[:2]) == {}
    assert paired_with("best", [outcome("best", 0, {}, box_ap=0.5), outcome("other", 0, {}, box_ap=0.4)]) == {}


@pytest.mark.parametrize(
    ("figures", "name"), [({"loss": 1, "top1": 0.5}, "top1"), ({"box_ap": 0.1, "mask_ap": 0.2}, "mask_ap"), ({"miou": 0.3}, "miou")]
)
def test_the_figure_is_that_of_the_task(figures: dict[str, float], name: str) -> None:
    assert headline([outcome("m", 0, {}, **figures)]) == name


def row(model: str, *figures: float, speed: float | None = 10.0, p: float | None = None) -> Row:
    test = None if p is None else PairedTest(372, 20, 10, p)
    return Row(model, figures, 1000, 1.0, 10, images_per_second=speed, test=test)


BEST = row("best", 0.60, 0.64)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([BEST], "best alone was compared: 62.0% ± 2.8."),
        (
            [BEST, row("quick", 0.61, 0.61, speed=25.0, p=0.4)],
            "Take quick: at 61.0% ± 0.0 it cannot be told from the best, best at 62.0% ± 2.8 (p = 0.4 on 372 pictures; p = 0.7 over the "
            "trainings; below 0.05 is asked for), and is 2.5 times as fast.",
        ),
        (
            [BEST, row("slow", 0.61, 0.61, speed=5.0, p=0.4)],
            "Take best: 62.0% ± 2.8. slow, at 61.0% ± 0.0, cannot be told from it (p = 0.4 on 372 pictures; p = 0.7 over the trainings; "
            "below 0.05 is asked for), but best is 2.0 times as fast.",
        ),
        (
            [BEST, row("hardly", 0.61, 0.61, speed=10.5, p=0.4)],
            "Take best: 62.0% ± 2.8. hardly, at 61.0% ± 0.0, cannot be told from it (p = 0.4 on 372 pictures; p = 0.7 over the trainings; "
            "below 0.05 is asked for).",
        ),
        (
            [BEST, row("far", 0.50, 0.50, speed=25.0, p=0.4)],
            "Take best: 62.0% ± 2.8. far, at 50.0% ± 0.0, cannot be told from it (p = 0.4 on 372 pictures; p = 0.11 over the trainings; "
            "below 0.05 is asked for).",
        ),
        (
            [row("best", 0.8, 0.802), row("quick", 0.55, 0.55, speed=25.0, p=0.001)],
            "Take best: 80.1% ± 0.1, 25.1 points ahead of quick (p = 0.001 on 372 pictures; p = 0.0025 over the trainings); the fastest, "
            "quick, reaches 55.0% ± 0.0 and is 2.5 times as fast.",
        ),
        (
            [row("best", 0.6), row("quick", 0.4, speed=90.0)],
            "Take best: 60.0%. quick, at 40.0%, cannot be told from it (one training each: the difference may be chance).",
        ),
        (
            [row("best", 0.6, speed=None), row("second", 0.59, p=0.5)],
            "Take best: 60.0%. second, at 59.0%, cannot be told from it (p = 0.5 on 372 pictures; below 0.05 is asked for; one training "
            "each: the difference may be chance).",
        ),
    ],
)
def test_the_sentence_follows_from_the_figures(rows: list[Row], sentence: str) -> None:
    assert recommend(rows) == sentence


def test_more_models_ask_for_stronger_proof() -> None:
    best, other = row("best", 0.6), row("other", 0.5, p=0.03)
    assert not alike(best, other, models=2)
    assert alike(best, other, models=3)


def test_both_the_pictures_and_the_scatter_of_trainings_must_speak_for_a_difference() -> None:
    best = row("best", 0.60, 0.61, 0.62)
    assert not alike(best, row("far", 0.50, 0.51, 0.52, p=0.001), models=2)
    assert alike(best, row("far", 0.50, 0.51, 0.52, p=0.2), models=2)
    assert alike(best, row("near", 0.59, 0.60, 0.61, p=0.001), models=2)
    assert alike(best, row("far", 0.57, 0.58, 0.59, p=0.0001), models=5), "more models ask for stronger proof of the scatter as well"
    assert not alike(best, row("far", 0.57, 0.58, 0.59, p=0.0001), models=2)
    assert not alike(best, row("far", 0.50, 0.51, 0.52), models=2)
    assert alike(row("best", 0.0, 0.0), row("other", 0.0, 0.0), models=2)


def test_pictures_are_the_same_where_they_are_so_for_every_seed() -> None:
    apart = [outcome("a", 0, rights("a", of="ab")), outcome("a", 1, rights("c", of="bc"))]
    assert same_pictures([*apart, outcome("b", 0, rights(of="ab")), outcome("b", 1, rights(of="bc"))])
    assert not same_pictures([*apart, outcome("b", 1, rights(of="ab"))]), "as many, but others"
    assert not same_pictures([outcome("a", 0, {}, miou=0.5), outcome("b", 0, rights("a"), miou=0.5)])


def test_models_are_ranked_on_the_seeds_that_all_have_finished() -> None:
    outcomes = [outcome("a", 0, rights("a")), outcome("a", 1, rights("a")), outcome("b", 1, rights("b"))]
    assert [(one.trial.model, one.trial.seed) for one in on_shared_seeds(outcomes)] == [("a", 1), ("b", 1)]
    apart = [outcome("a", 0, rights("a")), outcome("b", 1, rights("b"))]
    assert on_shared_seeds(apart) == apart and on_shared_seeds([]) == []
