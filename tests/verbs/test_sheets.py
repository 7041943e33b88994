"""Which of many pictures are shown."""

from itertools import pairwise

import pytest

from foveate.verbs.sheets import spread


@pytest.mark.parametrize(("length", "most"), [(100, 6), (7, 6), (6, 6), (3, 6), (1, 6), (2, 1)])
def test_places_are_spread_from_the_first_to_the_last(length: int, most: int) -> None:
    places = spread(length, most)
    assert len(places) == min(length, most)
    assert places[0] == 0
    assert len(places) == 1 or places[-1] == length - 1
    steps = [after - before for before, after in pairwise(places)]
    assert not steps or (max(steps) - min(steps) <= 1 and min(steps) >= 1)


def test_of_nothing_nothing_is_shown() -> None:
    assert spread(0, 6) == spread(9, 0) == []
