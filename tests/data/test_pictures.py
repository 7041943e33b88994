"""Picture sets: names, counts, labels in another class order; the embedded digits; the held-out part."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.digits import open_digits
from foveate.data.holdout import held_out
from foveate.data.pictures import Paths, PictureSet, shortened
from foveate.errors import UserError


def pictures(labels: tuple[int, ...], class_names: tuple[str, ...]) -> PictureSet:
    names = tuple(f"{class_names[label]}/{place}.jpg" for place, label in enumerate(labels))
    return PictureSet(Paths(Path("/data"), names), labels, class_names, "val")


def test_paths_are_a_sequence_of_paths() -> None:
    paths = Paths(Path("/data"), ("cat/a.jpg", "dog/b.jpg", "/elsewhere/c.jpg"))
    assert list(paths) == [Path("/data/cat/a.jpg"), Path("/data/dog/b.jpg"), Path("/elsewhere/c.jpg")]
    assert list(paths[1:]) == list(paths)[1:]
    assert len(paths) == 3
    assert Path("/data/dog/b.jpg") in paths


def test_counts_include_classes_without_pictures() -> None:
    found = pictures((2, 0, 2), ("a", "b", "c", "d"))
    assert found.counts() == (1, 0, 2, 0)
    assert found.name(0) == "c/0.jpg"
    assert PictureSet([Path("x/y.png")], (0,), ("a",), "val").name(0) == "x/y.png"


def test_labels_follow_the_names_into_a_models_class_order() -> None:
    found = pictures((0, 1, 2, 1), ("ant", "bee", "cow"))
    moved = found.with_classes(("cow", "dog", "bee", "ant"))
    assert [moved.class_names[label] for label in moved.labels] == ["ant", "bee", "cow", "bee"]
    assert moved.counts() == (1, 0, 2, 1)
    assert list(moved.files) == list(found.files)


def test_classes_unknown_to_the_model_are_named_but_empty_ones_do_not_matter() -> None:
    found = pictures((0, 1), ("ant", "bee", "cow"))
    assert found.with_classes(("bee", "ant")).labels == (1, 0)
    with pytest.raises(UserError, match=r"val: found classes bee, expected only the model's 2 classes \(ant, cow\)"):
        found.with_classes(("ant", "cow"))


def test_digits_are_whole_and_their_split_never_changes() -> None:
    digits = open_digits()
    assert digits.train is not None
    assert digits.val is not None
    assert (len(digits.train), len(digits.val), digits.test) == (1438, 359, None)
    shares = np.array(digits.val.counts()) / (np.array(digits.val.counts()) + digits.train.counts())
    assert np.abs(shares - 0.2).max() < 0.005
    first = digits.val.open(0)
    assert (first.size, first.mode) == ((8, 8), "L")
    with np.load(Path(__file__).parents[2] / "src/foveate/data/digits.npz", allow_pickle=False) as stored:
        in_file = Counter((picture.tobytes(), label) for picture, label in zip(stored["pictures"], stored["labels"].tolist(), strict=True))
    opened = [(part.open(index), part.labels[index]) for part in (digits.train, digits.val) for index in range(len(part))]
    sixteenths = [(np.rint(np.asarray(picture) * (16 / 255)).astype(np.uint8), label) for picture, label in opened]
    assert Counter((values.tobytes(), label) for values, label in sixteenths) == in_file
    assert np.asarray(first).max() == 255
    # another split would make resumed trainings and published numbers wrong
    assert digits.val.labels[:12] == (0, 6, 8, 9, 6, 5, 8, 9, 5, 2, 0, 0)


def test_digits_reach_worker_processes() -> None:
    val = open_digits().val
    copied = pickle.loads(pickle.dumps(val))
    assert np.array_equal(np.asarray(copied.open(5)), np.asarray(val.open(5)))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 3))
def test_every_class_is_parted_by_the_fraction(sizes: list[int], fraction: float, seed: int) -> None:
    classes = [label for label, size in enumerate(sizes) for _ in range(size)]
    chosen = held_out([str(place) for place in range(len(classes))], classes, fraction, seed)
    for label, size in enumerate(sizes):
        count = sum(picked for picked, of in zip(chosen, classes, strict=True) if of == label)
        assert abs(count - fraction * size) <= 0.5 or (size > 1 and count in (1, size - 1))
        assert size == 1 or not 0 < fraction < 1 or 0 < count < size


def test_the_held_out_part_depends_on_names_and_seed_alone() -> None:
    names = [f"picture{place}.jpg" for place in range(200)]
    chosen = {name for name, picked in zip(names, held_out(names, [0] * 200, 0.2), strict=True) if picked}
    backwards = names[::-1]
    assert {name for name, picked in zip(backwards, held_out(backwards, [0] * 200, 0.2), strict=True) if picked} == chosen
    more = [*names, "new.jpg"]
    after = {name for name, picked in zip(more, held_out(more, [0] * 201, 0.2), strict=True) if picked}
    assert len(chosen ^ after) <= 2
    other = {name for name, picked in zip(names, held_out(names, [0] * 200, 0.2, seed=1), strict=True) if picked}
    assert 0 < len(chosen & other) < 20  # 8 of 40 are expected by chance


def test_shortened() -> None:
    assert shortened(["a", "b"], 2) == "a, b"
    assert shortened(["a", "b", "c", "d"], 2) == "a, b and 2 more"
