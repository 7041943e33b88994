import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveate.tasks.classify import Classification, balanced_class_weights
from foveate.tasks.mixing import Mixing


def batch_of(size, classes=4):
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randn(size, 3, 6, 6, generator=generator), "label": torch.arange(size) % classes, "index": torch.arange(size)}


def test_parts_are_the_batch_in_order_and_channels_last():
    task = Classification(Mixing(4), None, [], 0, None)
    batch = batch_of(8)
    parts = task.parts(batch, 4, np.random.default_rng(0))
    assert [len(part["image"]) for part in parts] == [2, 2, 2, 2]
    assert torch.equal(torch.cat([part["image"] for part in parts]), batch["image"])
    assert parts[0]["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.cat([part["target"] for part in parts]).argmax(dim=1), batch["label"])


def test_loss_is_the_weighted_cross_entropy():
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    batch = batch_of(8)
    logits = torch.randn(8, 4)
    [part] = Classification(Mixing(4), weights, [], 0, None).parts(batch, 1, np.random.default_rng(0))
    loss = Classification(Mixing(4), weights, [], 0, None).loss(lambda images: logits, part)
    each = F.cross_entropy(logits, batch["label"], reduction="none") * weights[batch["label"]]
    assert loss.item() == pytest.approx(each.mean().item(), rel=1e-6)


def test_smoothed_loss_equals_torchs():
    batch, logits = batch_of(8), torch.randn(8, 4)
    task = Classification(Mixing(4, smoothing=0.1), None, [], 0, None)
    [part] = task.parts(batch, 1, np.random.default_rng(0))
    expected = F.cross_entropy(logits, batch["label"], label_smoothing=0.1)
    assert task.loss(lambda images: logits, part).item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_have_mean_one_and_equal_class_sums():
    labels = [0] * 30 + [1] * 5 + [3] * 1
    weights = balanced_class_weights(labels, 4)
    assert weights[torch.tensor(labels)].mean().item() == pytest.approx(1.0)
    assert (30 * weights[0]).item() == pytest.approx((5 * weights[1]).item()) == pytest.approx(weights[3].item())
    assert weights[2] == 0
