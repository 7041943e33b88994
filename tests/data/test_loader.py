"""Order, pictures and random numbers depend on the seed alone: not on workers, on processes, or on where a training was taken up again."""

import random
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.card import Preprocessing
from foveate.data.digits import open_digits
from foveate.data.examples import LabelledPictures
from foveate.data.folders import open_pictures
from foveate.data.loader import (
    default_num_workers,
    evaluation_loader,
    preserved_random_numbers,
    seed_random_numbers,
    stream_loader,
    training_loader,
)
from foveate.data.order import EvaluationBatches, TrainingStream, balanced_weights
from foveate.data.pictures import PictureSet
from foveate.data.transforms import Augmentation, Batch, EvaluationTransform, evaluation_transform, training_transform
from foveate.errors import UserError

SMALL = Preprocessing(size=(16, 16), resize=16)
EVERYTHING = training_transform(SMALL, Augmentation())


def states() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2], torch.get_rng_state().tolist()


def seventeen(make_tree) -> PictureSet:
    names = [f"{'cat' if place < 12 else 'dog'}/{place:02}.png" for place in range(17)]
    pictures = open_pictures(make_tree(*names), val_fraction=0).train
    assert pictures is not None
    return pictures


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    return all(set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(one, other, strict=True))


def test_seeded_numbers_follow_from_the_key_and_leave_the_callers_untouched() -> None:
    before = states()
    drawn = []
    for key in [(0, 1, 2), (0, 1, 2), (0, 12), (0, 1, 3), (1, 1, 2), (0, 1, 2, 0)]:
        with preserved_random_numbers():
            seed_random_numbers(*key)
            drawn.append((random.random(), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
    assert len({number for pair in drawn for number in pair}) == 10
    with pytest.raises(ZeroDivisionError), preserved_random_numbers():
        _ = random.random() / 0
    assert states() == before


SIZES = st.tuples(st.integers(1, 60), st.integers(1, 8), st.integers(1, 3)).filter(lambda sizes: sizes[0] >= sizes[1] * sizes[2])


@settings(deadline=None)
@given(SIZES, st.integers(0, 5), st.integers(0, 40))
def test_an_epoch_shows_every_picture_once_but_for_the_incomplete_last_batch(sizes: tuple[int, int, int], seed: int, steps: int) -> None:
    num_pictures, batch_size, processes = sizes
    streams = [TrainingStream(num_pictures, batch_size, steps, seed, rank, processes) for rank in range(processes)]
    per_epoch, left_out = streams[0].steps_per_epoch, streams[0].left_out
    assert per_epoch * batch_size * processes + left_out == num_pictures
    assert 0 <= left_out < batch_size * processes
    batches = [list(stream) for stream in streams]
    assert {len(part) for part in batches} == {len(streams[0])} == {steps}
    assert {len(batch) for part in batches for batch in part} <= {batch_size}
    for epoch in range(steps // per_epoch):
        shown = [index for part in batches for batch in part[epoch * per_epoch : (epoch + 1) * per_epoch] for index, _ in batch]
        assert len(set(shown)) == len(shown) == num_pictures - left_out
        assert set(shown) <= set(range(num_pictures))
    draws = [draw for part in batches for batch in part for _, draw in batch]
    assert sorted(draws) == list(range(steps * batch_size * processes))


@settings(deadline=None)
@given(SIZES, st.integers(0, 5), st.integers(0, 30), st.booleans())
def test_processes_share_the_stream_of_one_and_any_step_can_be_the_first(
    sizes: tuple[int, int, int], seed: int, start: int, weighted: bool
) -> None:
    num_pictures, batch_size, processes = sizes
    weights = list(range(1, num_pictures + 1)) if weighted else None
    alone = list(TrainingStream(num_pictures, batch_size * processes, 30, seed, weights=weights))
    shared = zip(
        *(TrainingStream(num_pictures, batch_size, 30, seed, rank, processes, weights=weights) for rank in range(processes)), strict=True
    )
    assert [[key for part in parts for key in part] for parts in shared] == alone
    later = TrainingStream(num_pictures, batch_size * processes, 30, seed, start_step=start, weights=weights)
    assert list(later) == alone[start:]
    assert len(later) == 30 - start


def test_epochs_and_seeds_differ() -> None:
    orders = [[index for batch in TrainingStream(50, 10, 10, seed) for index, _ in batch] for seed in (0, 1)]
    assert orders[0][:50] != orders[0][50:]
    assert orders[0] != orders[1]
    assert orders[0][:50] != list(range(50))


def test_a_set_smaller_than_a_batch_names_the_largest_that_fits() -> None:
    with pytest.raises(UserError, match=r"a batch of 8 on each of 3 processes for 17 .*, expected from 1 to 5: change --batch-size"):
        TrainingStream(17, 8, 10, 0, world_size=3)
    assert TrainingStream(17, 5, 10, 0, world_size=3).left_out == 2
    with pytest.raises(UserError, match="seed -1"):
        TrainingStream(17, 5, 10, -1)


def test_balanced_draws_show_every_class_equally_often() -> None:
    labels = [0] * 900 + [1] * 90 + [3] * 10
    stream = TrainingStream(1000, 100, 300, seed=0, weights=balanced_weights(labels))
    shown = np.array([index for batch in stream for index, _ in batch])
    shares = np.bincount(np.array(labels)[shown], minlength=4) / len(shown)
    assert shares == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.01)
    assert len(set(shown.tolist())) > 990
    rare = np.bincount(shown[shown >= 990] - 990)
    assert rare == pytest.approx(np.full(10, 1000), rel=0.15)


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(1, 20), st.integers(1, 5))
def test_evaluation_batches_are_the_same_on_any_number_of_processes(num_pictures: int, batch_size: int, processes: int) -> None:
    alone = list(EvaluationBatches(num_pictures, batch_size))
    assert [index for batch in alone for index in batch] == list(range(num_pictures))
    parts = [EvaluationBatches(num_pictures, batch_size, rank, processes) for rank in range(processes)]
    assert sorted(batch for part in parts for batch in part) == alone
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]


def test_a_training_stream_of_pictures_is_exact(make_tree) -> None:
    """0 and 2 workers, taken up again at any step, 1 and 2 processes: the same to the bit."""
    pictures = seventeen(make_tree)
    one = list(training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 9, seed=7), num_workers=0))
    assert len(one) == 9
    before = states()
    assert same(one, training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 9, seed=7), num_workers=2))
    for start in (1, 4, 5, 8):
        rest = training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 9, seed=7, start_step=start), num_workers=start % 3)
        assert same(one[start:], rest)
    halves = [training_loader(pictures, EVERYTHING, TrainingStream(17, 2, 9, 7, rank, 2), num_workers=rank) for rank in (0, 1)]
    for whole, left, right in zip(one, *halves, strict=True):
        assert all(torch.equal(whole[key], torch.cat((left[key], right[key]))) for key in whole)
    assert states() == before, "loading used or changed the training's random numbers"
    other_seed = next(iter(training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 9, seed=8), num_workers=0)))
    assert not torch.equal(other_seed["image"], one[0]["image"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_are_8_bit_until_they_are_finished(make_tree, num_workers: int) -> None:
    pictures = seventeen(make_tree)
    examples = LabelledPictures(pictures, EVERYTHING)
    for batch in stream_loader(examples, TrainingStream(17, 4, 4, seed=3), num_workers):
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        finished = examples.finish(batch, torch.device("cpu"))
        assert set(finished) == {"image", "label", "index"}
        assert finished["image"].shape == (4, 3, 16, 16)
        assert finished["image"].dtype == torch.float32
        assert finished["image"].is_contiguous(memory_format=torch.channels_last)
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (SMALL.mean, SMALL.std))
        for image, pixels, (top, left, height, width) in zip(finished["image"], batch["image"], batch["erased"].tolist(), strict=True):
            changed = image != (pixels / 255 - mean) / std
            assert changed[:, top : top + height, left : left + width].all()
            assert changed.sum() == 3 * height * width
        assert len(batch["noise"]) == 3 * (batch["erased"][:, 2] * batch["erased"][:, 3]).sum()


def test_a_picture_varies_from_epoch_to_epoch_and_from_draw_to_draw(make_tree) -> None:
    pictures = seventeen(make_tree)
    weights = [1.0] + [0.0] * 16  # only the first picture is ever drawn
    batches = list(training_loader(pictures, EVERYTHING, TrainingStream(17, 8, 2, seed=0, weights=weights), num_workers=0))
    assert {int(index) for batch in batches for index in batch["index"]} == {0}
    assert len({image.numpy().tobytes() for batch in batches for image in batch["image"]}) == 16


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_hold_what_the_set_holds(make_tree, num_workers: int) -> None:
    pictures = seventeen(make_tree)
    transform = evaluation_transform(SMALL)
    loader = evaluation_loader(pictures, transform, batch_size=5, num_workers=num_workers)
    for _ in range(2):  # as in every epoch
        batches = list(loader)
        assert [batch["index"].tolist() for batch in batches] == [[*range(5)], [*range(5, 10)], [*range(10, 15)], [15, 16]]
        for batch in batches:
            assert set(batch) == {"image", "label", "index"}
            assert batch["image"].shape == (len(batch["index"]), 3, 16, 16)
            assert batch["image"].dtype == torch.float32
            assert batch["image"].is_contiguous(memory_format=torch.channels_last)
            assert batch["label"].dtype == batch["index"].dtype == torch.int64
            for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
                assert torch.equal(image, transform(pictures.open(int(index))))
                assert int(label) == pictures.labels[int(index)]


def test_three_processes_evaluate_what_one_does(make_tree) -> None:
    pictures = seventeen(make_tree)
    transform = evaluation_transform(SMALL)
    alone = list(evaluation_loader(pictures, transform, batch_size=4, num_workers=0))
    for processes in (2, 3):
        parts = [list(evaluation_loader(pictures, transform, 4, rank, processes, num_workers=0)) for rank in range(processes)]
        gathered = sorted((batch for part in parts for batch in part), key=lambda batch: int(batch["index"][0]))
        assert same(alone, gathered)


def broken(pictures: PictureSet, *indices: int) -> None:
    for index in indices:
        path = Path(pictures.files[index])
        path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_picture_that_breaks_is_replaced_named_and_counted_in_training(make_tree, num_workers: int) -> None:
    pictures = seventeen(make_tree)
    whole = list(training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 8, seed=0), num_workers=0))
    first = whole[0]["index"].tolist()
    broken(pictures, first[1], first[3])
    loader = training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 8, seed=0), num_workers=num_workers)
    with pytest.warns(UserWarning, match="another picture takes its place in training") as warned:
        batches = list(loader)
    assert sorted(loader.replaced.values()) == [2, 2]  # once in each of two epochs
    assert len(warned) == 2
    assert all(any(pictures.name(index) in name for name in loader.replaced) for index in (first[1], first[3]))
    assert [batch["image"].shape for batch in batches] == [(4, 3, 16, 16)] * 8
    assert batches[0]["index"].tolist() == [first[0], first[2], first[2], first[0]]
    assert batches[0]["label"].tolist() == [pictures.labels[index] for index in batches[0]["index"].tolist()]
    assert torch.equal(batches[0]["image"][1], whole[0]["image"][2])
    untouched = [place for place, batch in enumerate(whole) if not {first[1], first[3]} & set(batch["index"].tolist())]
    assert untouched
    assert same([whole[place] for place in untouched], [batches[place] for place in untouched])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_picture_ends_an_evaluation_in_one_line(make_tree, num_workers: int) -> None:
    pictures = seventeen(make_tree)
    broken(pictures, 6)
    loader = evaluation_loader(pictures, evaluation_transform(SMALL), batch_size=4, num_workers=num_workers)
    with pytest.raises(UserError, match=r"cat/06\.png: broken picture") as error:
        list(loader)
    assert "\n" not in str(error.value)
    assert [len(batch["index"]) for batch in islice(loader, 1)] == [4]


def test_a_training_batch_of_broken_pictures_alone_ends_it(make_tree) -> None:
    pictures = seventeen(make_tree)
    broken(pictures, *range(17))
    with pytest.raises(UserError, match="broken picture"):
        list(training_loader(pictures, EVERYTHING, TrainingStream(17, 4, 2, seed=0), num_workers=0))


def test_errors_that_are_not_the_users_are_not_hidden(make_tree) -> None:
    class Faulty(EvaluationTransform):
        def __call__(self, image: object) -> torch.Tensor:
            raise AttributeError("a mistake in the program")

    with pytest.raises(AttributeError, match="a mistake in the program"):
        list(evaluation_loader(seventeen(make_tree), Faulty(SMALL), batch_size=4, num_workers=0))


def test_digits_are_loaded_without_workers(make_tree) -> None:
    train = open_digits().train
    assert train is not None
    assert default_num_workers(train) == 0
    assert 1 <= default_num_workers(seventeen(make_tree)) <= 8
    assert default_num_workers(seventeen(make_tree), processes=1000) == 1
    grey = Preprocessing(size=(32, 32), resize=32, mean=(0.5,), std=(0.5,))
    loader = training_loader(train, training_transform(grey, Augmentation(crop="pad", flip=0)), TrainingStream(len(train), 64, 3, seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [batch["image"].shape for batch in loader] == [(64, 1, 32, 32)] * 3


def test_real_photographs_through_workers(real_jpegs: list[Path]) -> None:
    pictures = PictureSet(real_jpegs, (0,) * len(real_jpegs), ("clothing",), "train")
    transform = training_transform(Preprocessing(size=(64, 96), resize=72), Augmentation())
    size = len(real_jpegs)
    one, two = (list(training_loader(pictures, transform, TrainingStream(size, 8, 6, seed=1), num_workers=n)) for n in (0, 2))
    assert same(one, two)
    finished = [transform.finish(batch, torch.device("cpu"))["image"] for batch in one]
    assert all(images.isfinite().all() and 0.1 < images.std() < 3 for images in finished)
