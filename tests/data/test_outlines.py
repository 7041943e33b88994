"""Run lengths from every source are pycocotools' own, and damaged ones never reach it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_lengths

from foveate.data.outlines import Outlines, encoded_polygons, encoded_runs, mask_areas

masks = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 1)).map(
    lambda given: (np.random.default_rng(given[2]).random(given[:2]) < given[3]).astype(np.uint8)
)


def decoded(counts: bytes, height: int, width: int) -> np.ndarray:
    return run_lengths.decode({"size": [height, width], "counts": counts})


def uncompressed(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *runs] if flat[0] else runs


@given(masks)
@settings(max_examples=60, deadline=None)
def test_run_lengths_of_both_forms_give_the_mask_back(mask: np.ndarray) -> None:
    height, width = mask.shape
    compressed = run_lengths.encode(np.asfortranarray(mask))["counts"]
    assert encoded_runs(compressed.decode(), width, height) == compressed
    assert np.array_equal(decoded(encoded_runs(uncompressed(mask), width, height), height, width), mask)


@given(masks, st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_text_is_refused_or_still_fills_the_picture(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    text = run_lengths.encode(np.asfortranarray(mask))["counts"].decode()
    place = data.draw(st.integers(0, len(text)))
    damaged = text[:place] + data.draw(st.text(max_size=3)) + text[place + data.draw(st.integers(0, 3)) :]
    found = encoded_runs(damaged, width, height)
    assert found is None or decoded(found, height, width).shape == mask.shape


def test_a_large_run_is_read_right() -> None:
    mask = np.zeros((1500, 2000), np.uint8)
    mask[:, 700] = 1
    text = run_lengths.encode(np.asfortranarray(mask))["counts"].decode()
    assert encoded_runs(text, 2000, 1500) == text.encode()
    assert encoded_runs(text, 2000, 1501) is None


def test_polygons_join_and_indices_behave_as_those_of_a_tuple() -> None:
    squares = [[0.0, 0, 4, 0, 4, 4, 0, 4], [2.0, 2, 6, 2, 6, 6, 2, 6]]
    sizes = np.array([[10, 8]] * 3)
    outlines = Outlines.of(sizes, [squares, [], [squares[1]]], {1: encoded_polygons([squares[0]], 10, 8)})
    assert decoded(outlines[0], 8, 10).sum() == 16 + 16 - 4
    assert outlines[1] == encoded_polygons([squares[0]], 10, 8)
    assert outlines[-1] == outlines[2] == outlines[1:][1]
    assert len(outlines) == 3
    with pytest.raises(IndexError):
        outlines[3]
    assert mask_areas(outlines, [2, 0], sizes).tolist() == [16, 28]


@given(st.lists(st.lists(st.integers(3, 6), max_size=3), min_size=1, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_a_part_has_the_same_outlines(shape: list[list[int]], data: st.DataObject) -> None:
    random = np.random.default_rng(len(shape))
    polygons = [[random.uniform(0, 20, 2 * corners).tolist() for corners in some] for some in shape]
    sizes = np.full((len(shape), 2), 20)
    runs = {0: encoded_polygons([[0.0, 0, 5, 0, 5, 5]], 20, 20)}
    outlines = Outlines.of(sizes, polygons, runs)
    places = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    part = outlines.take(np.array(places, dtype=np.int64))
    assert list(part) == [outlines[place] for place in places]
    assert part.given().tolist() == [place == 0 or bool(shape[place]) for place in places]


def test_points_far_outside_are_found() -> None:
    sizes = np.array([[10, 8]] * 4)
    near, far = [[-10.0, -8, 20, 16, 0, 0]], [[0.0, 0, 20.1, 0, 5, 5]]
    assert Outlines.of(sizes, [near, far, [], [near[0], far[0]]], {}).outside().tolist() == [1, 3]
