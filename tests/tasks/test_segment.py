"""The loss of segmentation against closed forms, and the task on pictures of different sizes."""

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor

from foveate.card import ModelCard, WholePicture
from foveate.data.loader import stream_loader
from foveate.data.masks import MaskSet
from foveate.data.order import TrainingStream
from foveate.tasks.segment import Segmentation, balanced_pixel_weights, segmentation
from foveate.tasks.settings import TrainSettings


def task_with(weights: Tensor | None = None) -> Segmentation:
    task = Segmentation.__new__(Segmentation)
    task.class_weights = weights
    return task


def random_part(seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 7, generator=random, requires_grad=True)
    mask = torch.randint(0, 3, (2, 5, 7), generator=random).to(torch.uint8)
    mask[0, :2] = 255
    return logits, {"image": torch.zeros(2, 3, 5, 7), "mask": mask}


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.0, 5.0])])
def test_the_loss_is_the_weighted_mean_over_pixels_that_have_a_class(weights: Tensor | None) -> None:
    logits, part = random_part()
    loss = task_with(weights).loss(lambda _: logits, part)
    known = part["mask"] != 255
    classes = part["mask"][known].long()
    each = -logits.log_softmax(dim=1).permute(0, 2, 3, 1)[known].gather(1, classes[:, None])[:, 0]
    factors = torch.ones(3)[classes] if weights is None else weights[classes]
    torch.testing.assert_close(loss, (factors * each).sum() / factors.sum())
    loss.backward()
    assert not logits.grad.permute(0, 2, 3, 1)[~known].any(), "nothing is learnt from pixels without a class"
    assert logits.grad.permute(0, 2, 3, 1)[known].any()


@pytest.mark.parametrize(("weights", "value"), [(None, 255), (torch.tensor([1.0, 0.0, 5.0]), 255), (torch.tensor([1.0, 0.0, 5.0]), 1)])
def test_nothing_to_learn_is_a_loss_of_zero_and_no_gradients(weights: Tensor | None, value: int) -> None:
    logits, part = random_part()
    part["mask"][:] = value  # no class, or one that weighs nothing
    loss = task_with(weights).loss(lambda _: 1e4 * logits, part)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_half_precision_logits_give_a_loss_in_float32() -> None:
    logits, part = random_part()
    assert task_with().loss(lambda _: logits.bfloat16(), part).dtype == torch.float32


def test_parts_are_the_batch_in_order() -> None:
    batch = {
        "image": torch.randn(6, 3, 4, 4),
        "mask": torch.randint(0, 3, (6, 4, 4)),
        "size": torch.full((6, 2), 4),
        "index": torch.arange(6),
    }
    for count in (1, 2, 3):
        parts = task_with().parts(batch, count, np.random.default_rng(0))
        assert [len(part["image"]) for part in parts] == [6 // count] * count
        for name in ("image", "mask"):
            assert torch.equal(torch.cat([part[name] for part in parts]), batch[name])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> MaskSet:
    """Three pictures of different sizes: class 0 on the left quarter, class 2 on the rest but for a row without a class."""
    folder = tmp_path_factory.mktemp("masks")
    files, masks = [], []
    for number, (width, height) in enumerate([(40, 32), (32, 48), (64, 40)]):
        numbers = np.full((height, width), 9, np.uint8)
        numbers[:, : width // 4] = 3
        numbers[0] = 255
        files.append(folder / f"{number}.png")
        masks.append(folder / f"{number}_mask.png")
        Image.fromarray(np.stack([numbers] * 3, axis=-1)).save(files[-1])
        Image.fromarray(numbers).save(masks[-1])
    return MaskSet(files, ("a", "b", "c"), "train", masks, (3, 5, 9))


CARD = ModelCard("resnet10t", 3, preprocessing=WholePicture(32, 96), task="segment", head="semantic_fpn")


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize("crop", [None, 40])
def test_training_sees_squares_of_the_crop_or_of_the_short_side(pictures: MaskSet, fabric: Fabric, crop: int | None) -> None:
    task = segmentation(fabric, TrainSettings(batch_size=3, crop_size=crop, num_workers=0), CARD, pictures, pictures)
    (batch,) = stream_loader(task.examples, TrainingStream(3, 3, 1, seed=0), num_workers=0)
    side = crop or 32
    assert batch["image"].shape == (3, 3, side, side) and batch["mask"].shape == (3, side, side)
    assert set(batch["mask"].unique().tolist()) == {0, 2, 255}
    assert task.class_weights is None and task.groups is None


def test_every_held_out_pixel_is_scored_once(pictures: MaskSet, fabric: Fabric) -> None:
    task = segmentation(fabric, TrainSettings(batch_size=2, num_workers=0), CARD, pictures, pictures)

    def always_the_last(images: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 2.0])[None, :, None, None].expand(len(images), 3, *images.shape[2:])

    results = task.results(fabric, always_the_last)
    quarter = 10 * 31 + 8 * 47 + 16 * 39
    rest = 30 * 31 + 24 * 47 + 48 * 39
    assert results.counts.tolist() == [[0, 0, quarter], [0, 0, 0], [0, 0, rest]]
    assert results.index == (0, 1, 2)


def test_balanced_weights_are_inverse_to_the_share_of_pixels(pictures: MaskSet, fabric: Fabric) -> None:
    weights = balanced_pixel_weights(pictures)
    quarter, rest = 10 * 31 + 8 * 47 + 16 * 39, 30 * 31 + 24 * 47 + 48 * 39
    assert weights.dtype == torch.float32 and weights[1] == 0
    assert weights[0] / weights[2] == pytest.approx(rest / quarter)
    assert (weights[0] * quarter + weights[2] * rest) / (quarter + rest) == pytest.approx(1)
    settings = TrainSettings(batch_size=2, num_workers=0, class_weights="balanced")
    assert torch.equal(segmentation(fabric, settings, CARD, pictures, pictures).class_weights, weights)
