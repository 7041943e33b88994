"""Whether two models differ by more than their trainings scatter."""

from collections.abc import Sequence
from math import atan, cos, floor, pi, sin, sqrt
from statistics import mean, variance


def welch_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p of Welch's test that the figures of two models, each of two or more trainings, have one mean.

    `t = (m1 - m2) / sqrt(v1 / n1 + v2 / n2)` with the degrees of freedom of Welch and Satterthwaite, rounded down, which errs towards
    chance. Trainings count as independent, also where they share a seed. 1 where both do not scatter and are equal, 0 where they do not
    scatter and differ.
    """
    shares = [variance(figures) / len(figures) for figures in (first, second)]
    difference = abs(mean(first) - mean(second))
    if not sum(shares):
        return float(difference == 0)
    parts = sum(share**2 / (len(figures) - 1) for share, figures in zip(shares, (first, second), strict=True))
    freedom = floor(sum(shares) ** 2 / parts + 1e-9)
    return student_p(difference / sqrt(sum(shares)), freedom)


def student_p(t: float, freedom: int) -> float:
    """How often Student's t of `freedom` degrees of freedom, 1 or more, is at least as far from 0 as `t`.

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4, in `theta = atan(t / sqrt(freedom))`.
    """
    theta = atan(abs(t) / sqrt(freedom))
    odd = freedom % 2
    term, total = (cos(theta) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cos(theta) ** 2 * k / (k + 1)
    within = 2 / pi * (theta + sin(theta) * total) if odd else sin(theta) * total
    return max(0.0, 1 - within)
