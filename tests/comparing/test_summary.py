"""Rows from outcomes, and the sentence that follows from rows."""

from dataclasses import replace
from pathlib import Path

import pytest

from foveate.comparing.paired import PairedTest
from foveate.comparing.summary import Row, alike, headline, paired_with, recommend, summarise
from foveate.comparing.trials import Outcome, Trial


def outcome(model: str, seed: int, right: dict[str, bool], **figures: float) -> Outcome:
    figures = figures or {"loss": 1.0, "top1": sum(right.values()) / len(right)}
    training = {"parameters": 1000, "minutes": 1.0 + seed, "steps": 10}
    return Outcome(Trial(model, seed, Path(model)), training, {"figures": figures}, right, [])


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
            "Take quick: at 61.0% ± 0.0 it cannot be told from the best, best at 62.0% ± 2.8 (p = 0.4 on 372 pictures), "
            "and is 2.5 times as fast.",
        ),
        (
            [BEST, row("slow", 0.61, 0.61, speed=5.0, p=0.4)],
            "Take best: 62.0% ± 2.8; slow, at 61.0% ± 0.0, cannot be told from it (p = 0.4 on 372 pictures), and is 2.0 times as fast.",
        ),
        (
            [BEST, row("quick", 0.55, 0.55, speed=25.0, p=0.001)],
            "Take best: 62.0% ± 2.8, 7.0 points ahead of quick (p = 0.001 on 372 pictures); the fastest, quick, reaches 55.0% ± 0.0, "
            "and is 2.5 times as fast.",
        ),
        (
            [row("best", 0.6, speed=None), row("second", 0.5, speed=None)],
            "Take best: 60.0%; second, at 50.0%, cannot be told from it (one training each: the difference may be chance).",
        ),
    ],
)
def test_the_sentence_follows_from_the_figures(rows: list[Row], sentence: str) -> None:
    assert recommend(rows) == sentence


def test_more_models_ask_for_stronger_proof() -> None:
    other = row("other", 0.5, 0.5, p=0.03)
    assert not alike(BEST, other, models=2)
    assert alike(BEST, other, models=3)


def test_without_pictures_to_pair_the_spread_of_the_trainings_decides() -> None:
    assert alike(BEST, row("near", 0.60, 0.62), models=2)
    assert not alike(BEST, row("far", 0.50, 0.51), models=2)
    assert alike(BEST, replace(BEST, figures=(0.1,)), models=2)
