"""Welch's test and the distribution under it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.comparing.scatter import student_p, welch_p


@given(t=st.floats(-20, 20), freedom=st.floats(1, 60))
def test_student_p_is_the_tail_of_the_density(t: float, freedom: float) -> None:
    x = np.linspace(0, abs(t), 20_001)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    assert student_p(t, freedom) == pytest.approx(1 - 2 * np.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x), abs=1e-6)


@given(t=st.floats(0.1, 1e6))
def test_small_p_keep_their_digits(t: float) -> None:
    """In closed form: 1 and 2 degrees of freedom."""
    assert student_p(t, 1) == pytest.approx(2 / math.pi * math.atan2(1, t), rel=1e-9)
    assert student_p(t, 2) == pytest.approx(2 / (2 + t * t + t * math.sqrt(2 + t * t)), rel=1e-6)


def test_welch_p_of_figures_worked_out_by_hand() -> None:
    # means 4 apart, variances 8/3 and 2/3, four each: t = 4 / sqrt(5/6), freedom (5/6)^2 / ((2/3)^2 / 3 + (1/6)^2 / 3) = 75 / 17
    first, second = (4.0, 8.0, 6.0, 6.0), (1.0, 3.0, 2.0, 2.0)
    assert welch_p(first, second) == welch_p(second, first) == pytest.approx(student_p(4 / math.sqrt(5 / 6), 75 / 17))
    assert welch_p((0.5, 0.5), (0.5, 0.5)) == 1 and welch_p((0.5, 0.5), (0.4, 0.4)) == 0


def test_trainings_of_one_model_are_called_different_about_as_often_as_p_says() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 2, 3))
    assert 0.02 < np.mean([welch_p(*pair.tolist()) < 0.05 for pair in draws]) < 0.055
