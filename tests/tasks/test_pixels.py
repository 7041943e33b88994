import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from PIL import Image

from foveate.data.masks import MaskSet
from foveate.tasks import pixels
from foveate.tasks.pixels import PixelResults, class_map, count_pixels, gather_pixels, score_pixels

CPU = torch.device("cpu")
NAMES = ("sky", "road", "car")


def results(rows, names=NAMES):
    return PixelResults(np.array(rows, dtype=np.int64), (0,), names)


@pytest.fixture
def stored(tmp_path):
    """A function that stores arrays as a set of masks."""

    def store(arrays, names=NAMES):
        files = [tmp_path / f"{place}.png" for place in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            Image.fromarray(array).save(file)
        return MaskSet(files, names, "val", files, tuple(range(len(names))))

    return store


def batches_of(logits, batch_size=1):
    """Batches whose pictures are what the "model" answers, each in the corner of the largest of its batch."""
    for first in range(0, len(logits), batch_size):
        some = logits[first : first + batch_size]
        sizes = torch.tensor([one.shape[1:] for one in some])
        height, width = sizes.amax(dim=0).tolist()
        padded = torch.stack([F.pad(one, (0, width - one.shape[2], 0, height - one.shape[1]), value=9.0) for one in some])
        yield {"image": padded, "size": sizes, "index": torch.arange(first, first + len(some))}


class TestFigures:
    def test_by_hand(self):
        found = results([[6, 2, 0], [1, 8, 1], [0, 0, 2]])
        assert found.figures() == pytest.approx(
            {"miou": (6 / 9 + 8 / 12 + 2 / 3) / 3, "pixel_accuracy": 16 / 20, "mean_accuracy": (6 / 8 + 8 / 10 + 1) / 3}
        )
        assert found.per_class()[1] == {"class": "road", "iou": 8 / 12, "accuracy": 0.8, "share": 0.5}
        assert found.notes() == ()

    def test_a_class_that_nobody_names_is_left_out_and_named(self):
        found = results([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
        assert found.figures() == pytest.approx({"miou": (3 / 4 + 4 / 5) / 2, "pixel_accuracy": 7 / 8, "mean_accuracy": (3 / 4 + 1) / 2})
        assert found.per_class()[2] == {"class": "car", "iou": None, "accuracy": None, "share": 0.0}
        assert found.notes() == ("car: neither in the masks nor predicted, left out of both means",)

    def test_a_class_that_is_only_predicted_counts_as_wrong(self):
        found = results([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
        assert found.figures()["miou"] == pytest.approx((3 / 4 + 1 + 0) / 3)
        assert found.figures()["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
        assert found.per_class()[2]["iou"] == 0 and found.per_class()[2]["accuracy"] is None
        assert "car: predicted but not in the masks" in found.notes()[0]

    def test_no_truth_has_no_figures_and_says_so(self):
        found = results(np.zeros((3, 3)))
        assert found.figures() == {} and "no pixel has a class" in found.notes()[0]
        assert [row["iou"] for row in found.per_class()] == [None] * 3


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 255), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_counts_equal_the_obvious_count(classes, height, width, seed):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, classes, (2, height, width)).astype(np.uint8)
    truth[random.random((height, width)) < 0.3] = 255
    counts = count_pixels(truth, predicted, classes)
    slow = np.zeros((classes, classes), dtype=np.int64)
    for real, guess in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if real != 255:
            slow[real, guess] += 1
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, slow)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.tuples(*[st.integers(1, 33)] * 4), st.integers(1, 500))
def test_the_class_map_is_that_of_the_resized_logits_in_any_portions(classes, sizes, numbers):
    logits = torch.randn(classes, *sizes[:2], generator=torch.Generator().manual_seed(sum(sizes)))
    expected = F.interpolate(logits[None], size=sizes[2:], mode="bilinear", align_corners=False)[0].argmax(dim=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "MOST_NUMBERS", numbers)
        found = class_map(logits, sizes[2:])
    assert found.dtype == torch.uint8 and torch.equal(found.long(), expected)


class TestScoring:
    def test_at_the_size_of_each_mask_and_whatever_the_batch(self, stored):
        random = np.random.default_rng(0)
        shapes = [(17, 31), (40, 22), (8, 8), (33, 64), (8, 8)]
        truths = [random.choice([0, 1, 2, 255], shape).astype(np.uint8) for shape in shapes]
        generator = torch.Generator().manual_seed(0)
        logits = [torch.randn(3, height // 2 + 1, width // 3 + 1, generator=generator) for height, width in shapes]
        masks = stored(truths)
        expected = np.zeros((3, 3), dtype=np.int64)
        for one, truth in zip(logits, truths, strict=True):
            guess = F.interpolate(one[None], size=truth.shape, mode="bilinear", align_corners=False)[0].argmax(dim=0).numpy()
            for real in range(3):
                for other in range(3):
                    expected[real, other] += ((truth == real) & (guess == other)).sum()
        for batch_size in (1, 2, 5):
            found = score_pixels(lambda images: images, batches_of(logits, batch_size), masks, CPU)
            np.testing.assert_array_equal(found.counts, expected)
            assert found.index == (0, 1, 2, 3, 4) and len(found) == 5

    def test_pictures_of_one_size_go_through_together(self, stored):
        masks, seen = stored([np.zeros((6, 8), np.uint8)] * 4), []

        def forward(images):
            seen.append(len(images))
            return images

        score_pixels(forward, batches_of([torch.zeros(3, 6, 8)] * 4, 2), masks, CPU)
        assert seen == [2, 2]

    def test_the_truth_scores_one(self, stored):
        truths = [np.random.default_rng(seed).choice([0, 1, 2, 255], (20, 30)).astype(np.uint8) for seed in range(3)]
        logits = [F.one_hot(torch.from_numpy(truth).long().clamp(max=2), 3).permute(2, 0, 1).float() for truth in truths]
        found = score_pixels(lambda images: images, batches_of(logits), stored(truths), CPU)
        assert found.figures() == {"miou": 1.0, "pixel_accuracy": 1.0, "mean_accuracy": 1.0}
        assert found.counts.sum() == sum((truth != 255).sum() for truth in truths)

    def test_another_number_of_classes_is_refused(self, stored):
        with pytest.raises(ValueError, match="found logits of 4 classes, expected 3"):
            score_pixels(lambda images: images, batches_of([torch.zeros(4, 5, 5)]), stored([np.zeros((5, 5), np.uint8)]), CPU)

    def test_a_process_without_pictures_has_an_empty_share(self, stored):
        found = score_pixels(lambda images: images, [], stored([np.zeros((5, 5), np.uint8)]), CPU)
        assert found.counts.tolist() == [[0] * 3] * 3 and found.index == ()


def test_gathering_insists_on_each_picture_once():
    fabric = Fabric(accelerator="cpu", devices=1)
    counts = np.eye(3, dtype=np.int64)
    gathered = gather_pixels(fabric, PixelResults(counts, (2, 0, 1), NAMES), 3)
    np.testing.assert_array_equal(gathered.counts, counts)
    assert gathered.index == (0, 1, 2)
    for index in ((0, 1, 1), (0, 1), (0, 1, 2, 3)):
        with pytest.raises(RuntimeError, match="missing or double"):
            gather_pixels(fabric, PixelResults(counts, index, NAMES), 3)
