"""Detection as the training loop sees it: batches cut into parts, losses, and what is found on held-out pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor

from foveate.card import ModelCard, WholePicture
from foveate.data.loader import stream_loader
from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.data.order import TrainingStream
from foveate.heads.create import create_dense
from foveate.tasks.detect import Detection, detection, targets
from foveate.tasks.settings import TrainSettings


def batch_of(counts: list[int], *, masks: bool) -> dict[str, Tensor]:
    """Every value tells its picture: that of picture i is i everywhere."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    batch = {
        "image": torch.arange(len(counts)).float()[:, None, None, None].expand(-1, 3, 8, 8),
        "size": torch.full((len(counts), 2), 8),
        "count": torch.tensor(counts),
        "index": torch.arange(len(counts)),
        "boxes": owner[:, None].float() + torch.tensor([0.0, 0.0, 1.0, 1.0]),
        "labels": owner,
    }
    return batch | ({"masks": owner[:, None, None].expand(-1, 8, 8).to(torch.uint8)} if masks else {})


@pytest.fixture(scope="module")
def task() -> Detection:
    """Cutting batches asks nothing of a task's pictures."""
    return Detection.__new__(Detection)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.data())
def test_parts_hold_whole_pictures_with_what_is_on_them(
    task: Detection, count: int, pictures: int, masks: bool, data: st.DataObject
) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=count * pictures, max_size=count * pictures))
    batch = batch_of(counts, masks=masks)
    parts = task.parts(batch, count, np.random.default_rng(0))
    assert len(parts) == count
    assert [set(part) for part in parts] == [set(batch)] * count
    whole = targets(batch)
    own = [one for part in parts for one in targets(part)]
    assert len(own) == len(whole) == len(counts)
    for index, (one, other) in enumerate(zip(own, whole, strict=True)):
        assert set(one) == {"boxes", "labels", "masks"} - (set() if masks else {"masks"})
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert one["labels"].tolist() == [index] * counts[index]
        assert one["boxes"].shape == (counts[index], 4)
    for name in ("image", "size", "count", "index"):
        assert torch.equal(torch.cat([part[name] for part in parts]), batch[name])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ObjectSet:
    """Five pictures of noise, 64 x 48 or 48 x 64, picture i with i % 3 objects."""
    folder, random = tmp_path_factory.mktemp("objects"), np.random.default_rng(0)
    files, annotated, sizes = [], [], []
    for number in range(5):
        sizes.append((64, 48) if number % 2 else (48, 64))
        files.append(folder / f"{number}.png")
        Image.fromarray(random.integers(0, 256, (*sizes[-1][::-1], 3), dtype=np.uint8)).save(files[-1])
        box = (4.0, 6.0, 24.0, 36.0)
        annotated.append([Annotated(number % 2, box, polygons=((4.0, 6.0, 24.0, 6.0, 24.0, 36.0, 4.0, 36.0),))] * (number % 3))
    return ObjectSet(files, ("a", "b"), "train", (5, 9), tuple(range(10, 15)), np.array(sizes), gathered(annotated, np.array(sizes)))


CARD = ModelCard("resnet10t", 2, class_names=("a", "b"), preprocessing=WholePicture(48, 80), task="detect", head="retinanet")
SETTINGS = TrainSettings(batch_size=2, num_workers=0, flip=0.0, color_jitter=0.0)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def test_the_loss_of_two_halves_is_the_mean_of_each_alone(pictures: ObjectSet, fabric: Fabric) -> None:
    """Four pictures, accumulated as two and two, of different sizes and with and without objects."""
    task = detection(fabric, SETTINGS, CARD, pictures, pictures)
    (batch,) = stream_loader(task.examples, TrainingStream(5, 4, 1, seed=3), num_workers=0)
    model = create_dense("resnet10t", "retinanet", 2, freeze_batch_norm=True)[0].train()
    halves = [task.loss(model, part) for part in task.parts(batch, 2, np.random.default_rng(0))]
    (torch.stack(halves).mean()).backward()
    accumulated = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    alone = [
        sum(model(batch["image"][start : start + 2], batch["size"][start : start + 2], targets(batch)[start : start + 2]).values())
        for start in (0, 2)
    ]
    torch.testing.assert_close(torch.stack(halves), torch.stack(alone))
    (torch.stack(alone).mean()).backward()
    for parameter, gradient in zip(model.parameters(), accumulated, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    whole = task.loss(model, task.parts(batch, 1, np.random.default_rng(0))[0])
    torch.testing.assert_close(whole, torch.stack(halves).mean(), rtol=1e-4, atol=1e-5)  # torchvision takes the mean over pictures too


def test_wide_and_tall_pictures_are_kept_apart(pictures: ObjectSet, fabric: Fabric) -> None:
    task = detection(fabric, SETTINGS, CARD, pictures, pictures)
    assert task.groups.tolist() == [0, 1, 0, 1, 0]
    assert task.chances is None


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn"])
def test_masks_are_read_only_for_the_head_that_learns_them(pictures: ObjectSet, fabric: Fabric, head: str) -> None:
    card = ModelCard("resnet10t", 2, preprocessing=WholePicture(48, 80), task="detect", head=head)
    task = detection(fabric, SETTINGS, card, pictures, pictures)
    assert ("masks" in task.examples(1)) == (head == "mask_rcnn")
    assert set(next(iter(task.evaluation))) == {"image", "size", "index"}


def test_every_held_out_picture_is_scored_once(pictures: ObjectSet, fabric: Fabric) -> None:
    """A model that knows the answer: its boxes come back under the numbers of the annotations, and score 1."""
    task = detection(fabric, SETTINGS, CARD, pictures, pictures)
    seen = iter([index for batch in task.evaluation for index in batch["index"].tolist()])

    def forward(images: Tensor, sizes: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for height, width in sizes.tolist():
            index = next(seen)
            scale = torch.tensor([width, height]) / torch.tensor(pictures.sizes[index])
            places = pictures.places(index)
            boxes = torch.from_numpy(pictures.objects.boxes[places]) * scale.repeat(2)
            labels = torch.from_numpy(pictures.objects.labels[places])
            found.append({"boxes": boxes.float(), "scores": torch.ones(len(boxes)), "labels": labels})
        return found

    results = task.results(fabric, forward)
    assert results.index == tuple(range(5))
    assert results.figures()["box_ap"] == pytest.approx(1)
    assert {entry["category_id"] for entry in results.entries()} == {5, 9}
    assert {entry["image_id"] for entry in results.entries()} == {11, 12, 14}
