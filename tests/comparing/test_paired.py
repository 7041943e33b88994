"""The sign test against its definition, by tossing coins, and what is counted as a win."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.comparing.paired import paired_test, sign_test


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (1, 5, 14 / 64), (4, 4, 1.0), (0, 20, 2 / 2**20)]
)
def test_closed_forms(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p, rel=1e-12)


@given(wins=st.integers(0, 300), losses=st.integers(0, 300))
def test_sides_are_alike_and_a_wider_gap_is_rarer(wins: int, losses: int) -> None:
    p = sign_test(wins, losses)
    assert 0 <= p <= 1
    assert p == sign_test(losses, wins)
    assert sign_test(max(wins, losses) + 1, min(wins, losses)) <= p or wins == losses


def test_fair_coins_are_called_unfair_about_as_often_as_p_says() -> None:
    toss = random.Random(0)
    called = 0
    for _ in range(2000):
        wins = sum(toss.random() < 0.5 for _ in range(60))
        called += sign_test(wins, 60 - wins) <= 0.05
    assert 0.02 < called / 2000 <= 0.05  # exact tests stay below the level, as counts are whole


def test_a_picture_counts_once_whichever_number_of_trainings() -> None:
    first, second = {"a": 3, "b": 0, "c": 2, "d": 1}, {"a": 0, "b": 0, "c": 1, "d": 3}
    test = paired_test(first, second)
    assert (test.pictures, test.wins, test.losses) == (4, 2, 1)
    assert test.p == sign_test(2, 1)


def test_other_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the same ones"):
        paired_test({"a": 1}, {"b": 1})
