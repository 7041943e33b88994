"""Whether two models differ by more than their trainings scatter."""

from collections.abc import Sequence
from math import atan2, exp, lgamma, pi, sqrt
from statistics import mean, variance

import numpy as np

NODES = 64  # of the quadrature


def welch_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p of Welch's test that the figures of two models, each of two or more trainings, have one mean.

    `t = (m1 - m2) / sqrt(v1 / n1 + v2 / n2)` with the degrees of freedom of Welch and Satterthwaite. Trainings count as independent, also
    where they share a seed. 1 where both do not scatter and are equal, 0 where they do not scatter and differ.
    """
    shares = [variance(figures) / len(figures) for figures in (first, second)]
    difference = abs(mean(first) - mean(second))
    if not sum(shares):
        return float(difference == 0)
    parts = sum(share**2 / (len(figures) - 1) for share, figures in zip(shares, (first, second), strict=True))
    return student_p(difference / sqrt(sum(shares)), sum(shares) ** 2 / parts)


def student_p(t: float, freedom: float) -> float:
    """How often Student's t of `freedom` degrees of freedom, any number from 1 up, is at least as far from 0 as `t`.

    With `t = sqrt(freedom) / tan(a)` the tail is `2 G((f + 1) / 2) / (sqrt(pi) G(f / 2))` times the integral of `sin(v)^(f - 1)` from 0 to
    a, f the freedom and G the gamma function: Abramowitz and Stegun, 26.7.1, substituted; by Gauss's quadrature over `v = a u^4`, which
    smoothes the root that the integrand has at 0 below two degrees of freedom.
    """
    end = atan2(sqrt(freedom), abs(t))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    u = (nodes + 1) / 2
    integral = 2 * end * float(weights @ (u**3 * np.sin(end * u**4) ** (freedom - 1)))
    return min(1.0, 2 * exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(pi) * integral)
