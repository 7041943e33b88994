"""The coefficients of the error function in src/foveate/speed/native/lanes.h: erf(z) = z P(z^2) / Q(z^2) below 3.95.

    python benchmarks/fit_erf.py

Method: P and Q of degree 5 in z^2, Q(0) = 1, by Loeb's iteration (least squares of P - f Q, divided by the Q before), with weights that
grow where the deviation is large, so that it becomes even. Prints both, and the largest deviation of what float32 makes of them.
"""

import math

import numpy as np
from numpy.typing import NDArray

LIMIT, DEGREE, ITERATIONS = 3.95, 5, 60


def fitted() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients of P and Q from the constant up."""
    squares = LIMIT**2 * (0.5 - 0.5 * np.cos(np.linspace(0, math.pi, 4001)))
    roots = np.sqrt(squares)
    wanted = np.array([math.erf(z) / z if z else 2 / math.sqrt(math.pi) for z in roots])
    powers = (squares / LIMIT**2)[:, None] ** np.arange(DEGREE + 1)
    importance, below, numbers = np.ones_like(squares), np.ones_like(squares), np.empty(0)
    for _ in range(ITERATIONS):
        weights = importance * np.maximum(roots, 0.5) / np.abs(below)
        system = np.hstack((powers, -wanted[:, None] * powers[:, 1:]))
        numbers = np.linalg.lstsq(system * weights[:, None], wanted * weights, rcond=None)[0]
        below = 1 + powers[:, 1:] @ numbers[DEGREE + 1 :]
        deviation = np.abs((powers @ numbers[: DEGREE + 1] / below - wanted) * np.maximum(roots, 0.5))
        importance = importance * (deviation / deviation.max() + 0.05) ** 0.3
        importance /= importance.max()
    scale = LIMIT ** (2 * np.arange(DEGREE + 1))
    return numbers[: DEGREE + 1] / scale, np.concatenate(([1.0], numbers[DEGREE + 1 :])) / scale


def main() -> None:
    above, below = (part.astype(np.float32) for part in fitted())
    z = np.linspace(0, LIMIT, 1_000_001).astype(np.float32)
    found = z * np.polyval(above[::-1], z * z) / np.polyval(below[::-1], z * z)
    deviation = np.abs(found - np.array([math.erf(value) for value in z])).max()
    print("P:", *(f"{value:.9e}" for value in above))
    print("Q:", *(f"{value:.9e}" for value in below))
    print(f"largest deviation in float32: {deviation:.1e}")


if __name__ == "__main__":
    main()
