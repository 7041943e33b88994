"""Batches of pictures of one kind in training, of one size in evaluation: nothing lost, nothing twice, on any number of processes."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.data.order import EqualSizeBatches, TrainingStream
from foveate.errors import UserError

GROUPED = st.lists(st.integers(0, 3), min_size=1, max_size=60)
SHARES = st.tuples(st.integers(1, 6), st.integers(1, 3))  # pictures per step and process, processes


def streams(groups: list[int], share: tuple[int, int], steps: int, seed: int, **more: int) -> list[TrainingStream]:
    batch, processes = share
    kinds = np.array(groups)
    return [TrainingStream(len(groups), batch, steps, seed, rank, processes, groups=kinds, **more) for rank in range(processes)]


def joined(parts: list[TrainingStream]) -> list[list[tuple[int, int]]]:
    """The global batches of all processes."""
    return [[key for part in step for key in part] for step in zip(*parts, strict=True)]


@settings(deadline=None)
@given(GROUPED, SHARES, st.integers(0, 9))
def test_every_picture_once_an_epoch_but_for_those_left_out(groups: list[int], share: tuple[int, int], seed: int) -> None:
    size = share[0] * share[1]
    if len(groups) < size:
        with pytest.raises(UserError, match="training pictures"):
            streams(groups, share, 1, seed)
        return
    per_epoch = len(groups) // size
    batches = joined(streams(groups, share, 2 * per_epoch, seed))
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        shown = [index for batch in epoch for index, _ in batch]
        assert len(set(shown)) == len(shown) == len(groups) - len(groups) % size
        assert set(shown) <= set(range(len(groups)))
    assert [draw for batch in batches for _, draw in batch] == list(range(2 * per_epoch * size))


@settings(deadline=None)
@given(GROUPED, SHARES, st.integers(0, 9))
def test_as_many_batches_as_can_be_are_of_one_group(groups: list[int], share: tuple[int, int], seed: int) -> None:
    size = share[0] * share[1]
    if len(groups) < size:
        return
    batches = joined(streams(groups, share, len(groups) // size, seed))
    pure = Counter(groups[batch[0][0]] for batch in batches if len({groups[index] for index, _ in batch}) == 1)
    for group, count in Counter(groups).items():
        assert pure[group] >= count // size
    assert len(batches) - pure.total() <= max(0, len(set(groups)) - 1), "mixed are at most what the groups leave over"


@settings(deadline=None)
@given(GROUPED, SHARES, st.integers(0, 9), st.integers(0, 12))
def test_any_step_can_be_the_first_and_processes_share_the_stream_of_one(
    groups: list[int], share: tuple[int, int], seed: int, start: int
) -> None:
    size = share[0] * share[1]
    if len(groups) < size:
        return
    alone = joined(streams(groups, (size, 1), 12, seed))
    assert joined(streams(groups, share, 12, seed)) == alone
    assert joined(streams(groups, share, 12, seed, start_step=start)) == alone[start:]


def test_groups_come_in_random_order_and_their_pictures_too() -> None:
    groups = [0] * 40 + [1] * 40
    batches = joined(streams(groups, (4, 1), 40, 0))
    kinds = [groups[batch[0][0]] for batch in batches]
    assert 5 < sum(a != b for a, b in itertools.pairwise(kinds)) < 35, "neither in blocks nor in turns"
    first, second = ([index for batch in epoch for index, _ in batch] for epoch in (batches[:20], batches[20:]))
    assert first != second and sorted(first) == sorted(second)
    assert joined(streams(groups, (4, 1), 40, 1)) != batches


def test_what_fills_no_batch_of_its_group_is_left_out_by_chance() -> None:
    """3 of 43 pictures are left out each epoch, and not always the same ones."""
    groups = [0] * 21 + [1] * 22
    batches = joined(streams(groups, (4, 1), 10 * 60, 0))
    seen = Counter(index for batch in batches for index, _ in batch)
    assert set(seen) == set(range(43))
    assert min(seen.values()) > 40


SIZES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=40)


@settings(deadline=None)
@given(SIZES, st.integers(1, 6), st.integers(1, 4))
def test_evaluation_batches_are_of_one_size_and_hold_every_picture_once(sizes: list[tuple[int, int]], batch: int, processes: int) -> None:
    alone = list(EqualSizeBatches(np.array(sizes), batch))
    assert sorted(index for part in alone for index in part) == list(range(len(sizes)))
    assert all(len({sizes[index] for index in part}) == 1 and 1 <= len(part) <= batch for part in alone)
    assert len(alone) == sum(-(-count // batch) for count in Counter(sizes).values()), "no more batches than needed"
    parts = [EqualSizeBatches(np.array(sizes), batch, rank, processes) for rank in range(processes)]
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]
    assert sorted(index for part in parts for index in part) == sorted(alone), "a batch does not depend on the number of processes"
    assert max(len(part) for part in parts) - min(len(part) for part in parts) <= 1
    assert list(EqualSizeBatches(np.array(sizes), batch)) == alone


def test_pictures_keep_their_order_within_a_size() -> None:
    sizes = np.array([[5, 4], [4, 5], [5, 4], [4, 5], [5, 4]])
    assert list(EqualSizeBatches(sizes, 2)) == [[0, 2], [4], [1, 3]]
    with pytest.raises(UserError, match="batch size of 0"):
        EqualSizeBatches(sizes, 0)
