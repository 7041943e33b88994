import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric import Fabric

from foveate.tasks.results import PictureResults, gather_results, score_pictures

CPU = torch.device("cpu")


def scored(logits, labels, batch_size=4):
    """Results of a "model" that hands on pictures which are its logits."""
    logits, labels = torch.tensor(logits), torch.tensor(labels)
    places = torch.arange(len(labels)).split(batch_size)
    batches = [{"image": logits[at][:, :, None, None], "label": labels[at], "index": at} for at in places]
    return score_pictures(lambda images: images[:, :, 0, 0], batches, logits.shape[1], CPU)


def test_figures_by_hand():
    results = scored([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0]], [0, 2, 1])
    losses = [math.log(math.e**2 + math.e + 1) - 2, math.log(1 + math.e**3 + math.e) - 1, math.log(math.e + 2)]
    assert results.figures() == pytest.approx({"loss": sum(losses) / 3, "top1": 1 / 3})
    assert results.guesses[:, 0].tolist() == [0, 1, 0]
    assert results.probability.tolist() == pytest.approx(
        [math.e**2 / (math.e**2 + math.e + 1), math.e**3 / (1 + math.e**3 + math.e), math.e / (math.e + 2)]
    )
    assert results.confusion(3).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_top5_counts_a_label_among_the_first_five():
    falling = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 6
    assert scored(falling, [0, 1, 2, 3, 4, 5]).figures() == pytest.approx(
        {"loss": pytest.approx(2.956, abs=0.1), "top1": 1 / 6, "top5": 5 / 6}
    )


@given(data=st.data(), classes=st.integers(2, 8), size=st.integers(1, 30), batch_size=st.integers(1, 9))
def test_confusion_agrees_with_figures(data, classes, size, batch_size):
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
    logits = torch.randn(size, classes, generator=torch.Generator().manual_seed(size)).tolist()
    results = scored(logits, labels, batch_size)
    confusion = results.confusion(classes)
    assert confusion.sum() == size
    assert confusion.sum(dim=1).tolist() == torch.bincount(torch.tensor(labels), minlength=classes).tolist()
    assert results.figures()["top1"] == confusion.trace().item() / size
    assert ("top5" in results.figures()) == (classes > 5)


def test_gathering_sorts_and_insists_on_each_picture_once():
    fabric = Fabric(accelerator="cpu", devices=1)
    results = scored([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [0, 1, 0])
    shuffled = PictureResults(
        *(column[[2, 0, 1]] for column in (results.index, results.label, results.guesses, results.probability, results.loss))
    )
    assert torch.equal(gather_results(fabric, shuffled, 3).loss, results.loss)
    doubled = PictureResults(
        *(column[[0, 1, 1]] for column in (results.index, results.label, results.guesses, results.probability, results.loss))
    )
    with pytest.raises(RuntimeError, match="missing or double"):
        gather_results(fabric, doubled, 3)
    with pytest.raises(RuntimeError, match="3 results for 4"):
        gather_results(fabric, results, 4)


def test_process_without_pictures_has_an_empty_share():
    empty = score_pictures(lambda images: images, [], 7, CPU)
    assert len(empty) == 0
    assert empty.guesses.shape == (0, 5)
