"""Exact evaluation: what a model says to every picture, gathered over all processes, each picture exactly once."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from foveate.data.pictures import PictureSet
from foveate.tasks.base import Batch, Forward

MOST_GUESSES = 5
GUESS_COLUMNS = ("picture", "truth", "guess", "probability", "loss")


@dataclass(frozen=True)
class PictureResults:
    """One row per picture, with k = 5 guesses, or one where there are at most five classes.

    Args:
        index: (N,) int64, the picture's place in its set.
        label: (N,) int64, the truth.
        guesses: (N, k) int64, classes by falling score.
        probability: (N,) float64, of the first guess.
        loss: (N,) float64, cross-entropy against the label, without smoothing or weights.
    """

    index: Tensor
    label: Tensor
    guesses: Tensor
    probability: Tensor
    loss: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def correct(self) -> Tensor:
        """(N,) bool: the first guess is right."""
        return self.guesses[:, 0] == self.label

    def figures(self) -> dict[str, float]:
        """`loss`, `top1` and, with more than five classes, `top5`; shares of 1."""
        figures = {"loss": self.loss.mean().item(), "top1": self.correct.double().mean().item()}
        if self.guesses.shape[1] == MOST_GUESSES:
            figures["top5"] = (self.guesses == self.label[:, None]).any(dim=1).double().mean().item()
        return figures

    def confusion(self, num_classes: int) -> Tensor:
        """(K, K) int64 counts, rows = truth, columns = first guess."""
        cells = self.label * num_classes + self.guesses[:, 0]
        return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    def to_csv(self, pictures: PictureSet) -> str:
        """A line per picture: its name, the class it shows, the class guessed, the probability of the guess, and the loss."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(GUESS_COLUMNS)
        names = pictures.class_names
        columns = (self.index, self.label, self.guesses[:, 0], self.probability, self.loss)
        for index, label, guess, probability, loss in zip(*(column.tolist() for column in columns), strict=True):
            table.writerow((pictures.name(index), names[label], names[guess], f"{probability:.6g}", f"{loss:.6g}"))
        return text.getvalue()


@torch.inference_mode()
def score_pictures(forward: Forward, batches: Iterable[Batch], num_classes: int, device: torch.device) -> PictureResults:
    """The results of this process's batches, in their order, on the CPU. `forward` gives logits (B, K)."""
    guesses = MOST_GUESSES if num_classes > MOST_GUESSES else 1
    rows: list[tuple[Tensor, ...]] = []
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True, memory_format=torch.channels_last)
        label = batch["label"]
        logits = forward(images).float().cpu().double()  # some accelerators have no float64
        best = logits.topk(guesses, dim=1).indices
        probability = logits.softmax(dim=1).gather(1, best[:, :1])[:, 0]
        rows.append((batch["index"], batch["label"], best, probability, F.cross_entropy(logits, label, reduction="none")))
    if not rows:
        rows = [(torch.empty(0, dtype=torch.int64),) * 2 + (torch.empty(0, guesses, dtype=torch.int64),) + (torch.empty(0).double(),) * 2]
    return PictureResults(*(torch.cat(column).cpu() for column in zip(*rows, strict=True)))


def gather_results(fabric: Fabric, mine: PictureResults, expected: int) -> PictureResults:
    """The results of all processes in the order of the pictures, the same on every process.

    Raises `RuntimeError` unless they hold each of the `expected` pictures exactly once.
    """
    everyones: list[Any] = [None] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(everyones, astuple(mine))
    else:
        everyones = [astuple(mine)]
    columns = [torch.cat(column) for column in zip(*everyones, strict=True)]
    order = columns[0].argsort()
    results = PictureResults(*(column[order] for column in columns))
    if not torch.equal(results.index, torch.arange(expected)):
        raise RuntimeError(f"evaluation saw {len(results)} results for {expected} pictures: some are missing or double")
    return results
