"""Whether two models differ on the same pictures by more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class PairedTest:
    """The exact sign test over pictures; with one training each it is McNemar's exact test.

    Args:
        pictures: that both models were asked about.
        wins, losses: on which the first was right in more, or in fewer, of its trainings than the second.
        p: how often chance alone would give a split as uneven or more so, were both equally good. It takes these pictures for a draw from
            all pictures and says nothing of how trainings scatter.
    """

    pictures: int
    wins: int
    losses: int
    p: float


def paired_test(first: Mapping[str, int], second: Mapping[str, int]) -> PairedTest:
    """Two models compared picture by picture.

    Args:
        first, second: by picture, in how many trainings the model was right about it.

    Raises:
        ValueError: where they were not asked about the same pictures.
    """
    if first.keys() != second.keys():
        raise ValueError(f"found {len(first)} and {len(second)} pictures, expected the same ones")
    wins = sum(first[name] > second[name] for name in first)
    losses = sum(first[name] < second[name] for name in first)
    return PairedTest(len(first), wins, losses, sign_test(wins, losses))


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p of `wins` against `losses` under a fair coin, exact: `min(1, 2 P(X <= min(wins, losses)))`, X ~ Binomial(n, 1/2)."""
    count = wins + losses
    tail = sum(comb(count, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**count)
