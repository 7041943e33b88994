"""Sets of objects: parts of them, what can be trained on, and annotations that come back as they were."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.data.pictures import Paths


def random_set(counts: list[int], outlined: bool, seed: int = 0) -> ObjectSet:
    random = np.random.default_rng(seed)
    sizes = random.integers(20, 60, (len(counts), 2))
    annotated = []
    for count, (width, height) in zip(counts, sizes.tolist(), strict=True):
        some = []
        for _ in range(count):
            left, top = random.uniform(-5, width), random.uniform(-5, height)
            right, bottom = left + random.uniform(-2, 30), top + random.uniform(-2, 30)
            polygon = (left, top, right, top, right, bottom, left, bottom)
            some.append(
                Annotated(int(random.integers(3)), (left, top, right, bottom), bool(random.integers(2)), (polygon,) if outlined else ())
            )
        annotated.append(some)
    files = Paths(Path("/data"), tuple(f"{place}.jpg" for place in range(len(counts))))
    numbers = tuple(range(100, 100 + len(counts)))
    return ObjectSet(files, ("a", "b", "c"), "train", (1, 5, 9), numbers, sizes, gathered(annotated, sizes))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.booleans(), st.data())
@settings(max_examples=40, deadline=None)
def test_a_part_holds_the_objects_of_its_pictures(counts: list[int], outlined: bool, data: st.DataObject) -> None:
    whole = random_set(counts, outlined)
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), unique=True, min_size=1))
    part = whole.take(chosen, "val")
    assert (part.split, part.picture_ids) == ("val", tuple(100 + index for index in chosen))
    for new, old in enumerate(chosen):
        assert part.name(new) == whole.name(old)
        assert part.sizes[new].tolist() == whole.sizes[old].tolist()
        here, there = part.objects.of(new), whole.objects.of(old)
        for column in ("boxes", "labels", "crowd", "area"):
            np.testing.assert_array_equal(getattr(part.objects, column)[here], getattr(whole.objects, column)[there])
        assert [(part.objects.outlines or {}) and part.objects.outlines[place] for place in range(here.start, here.stop)] == [
            (whole.objects.outlines or {}) and whole.objects.outlines[place] for place in range(there.start, there.stop)
        ]
        np.testing.assert_array_equal(part.usable[here], whole.usable[there])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_usable_objects_are_a_pixel_large_inside_and_no_crowd(counts: list[int], seed: int) -> None:
    found = random_set(counts, outlined=False, seed=seed)
    for place, (left, top, right, bottom) in enumerate(found.objects.boxes):
        width, height = found.sizes[found.pictures[place]]
        inside = min(right, width) - max(left, 0) >= 1 and min(bottom, height) - max(top, 0) >= 1
        assert found.usable[place] == (inside and not found.objects.crowd[place])
    assert sum(found.counts()) == found.usable.sum() == sum(len(found.places(index)) for index in range(len(found)))


def test_the_area_is_that_of_the_outline_else_of_the_box() -> None:
    sizes = np.array([[50, 40]])
    triangle = Annotated(0, (10, 10, 30, 30), polygons=((10, 10, 30, 10, 10, 30),))
    objects = gathered([[triangle, Annotated(0, (10, 10, 30, 30)), Annotated(0, (10, 10, 5, 30))]], sizes)
    assert objects.area[0] == pytest.approx(200, rel=0.1)
    assert objects.area[1:].tolist() == [400, 0]
    assert objects.outlined.tolist() == [True, False, False]


def test_no_pictures_and_no_objects_are_legal() -> None:
    found = random_set([0, 0], outlined=True)
    assert (found.counts(), found.has_outlines, len(found.take([1], "val"))) == ((0, 0, 0), False, 1)
    assert found.ground_truth()["annotations"] == []


def test_ground_truth_is_what_was_annotated() -> None:
    found = random_set([3, 0, 2], outlined=True)
    truth = found.ground_truth()
    assert [image["id"] for image in truth["images"]] == [100, 101, 102]
    assert [(entry["id"], entry["name"]) for entry in truth["categories"]] == [(1, "a"), (5, "b"), (9, "c")]
    assert [annotation["image_id"] for annotation in truth["annotations"]] == [100, 100, 100, 102, 102]
    for place, annotation in enumerate(truth["annotations"]):
        left, top, width, height = annotation["bbox"]
        np.testing.assert_allclose([left, top, left + width, top + height], found.objects.boxes[place])
        assert annotation["category_id"] == (1, 5, 9)[found.objects.labels[place]]
        assert annotation["segmentation"]["size"] == found.sizes[found.pictures[place]].tolist()[::-1]
