"""What a training draws into its run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from foveate.card import ModelCard
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import PictureSet, StoredPictures
from foveate.data.reading import read_thumbnail
from foveate.layers.gabor import LearnableGaborFilter
from foveate.plots.confusion import confusion_matrix
from foveate.plots.contact_sheet import contact_sheet
from foveate.plots.curves import learning_curves
from foveate.plots.gabor import gabor_sheet, gabor_titles
from foveate.run import RunFolder
from foveate.tasks.base import Forward, Results
from foveate.tasks.detections import DetectionResults
from foveate.tasks.pixels import PixelResults
from foveate.tasks.results import PictureResults
from foveate.tasks.segment import classes_on
from foveate.verbs.dense_drawings import draw_found, draw_segmented
from foveate.verbs.sheets import spread

EXAMPLES = 24
WRONG_EXAMPLES = 8
FILTERS = 32


@dataclass(frozen=True)
class GaborFilters:
    """Copies of a model's Gabor filters: kernels (N, k, k), wavelengths (N,) in pixels, orientations (N,) in radians."""

    kernels: npt.NDArray[np.float32]
    wavelengths: npt.NDArray[np.float32]
    orientations: npt.NDArray[np.float32]


@torch.no_grad()
def gabor_filters(model: nn.Module) -> GaborFilters | None:
    """Up to `FILTERS` of the model's Gabor filters as they stand, spread evenly from its first to its last; None where it has none."""
    layers = [module for module in model.modules() if isinstance(module, LearnableGaborFilter)]
    if not layers:
        return None
    columns: tuple[list[Tensor], ...] = (
        [layer.kernels() for layer in layers],
        [layer.wavelength for layer in layers],
        [layer.orientation.data for layer in layers],
    )
    kernels, wavelengths, orientations = (torch.cat(column).cpu().float().numpy() for column in columns)
    chosen = spread(len(kernels), FILTERS)
    return GaborFilters(kernels[chosen], wavelengths[chosen], orientations[chosen])


def draw_training(
    run: RunFolder, title: str, rows: Sequence[Mapping[str, float]], before: GaborFilters | None, after: GaborFilters | None
) -> None:
    """The curves, and the Gabor filters before and after, where the model has any."""
    learning_curves(rows, run.curves, title=title)
    if before is not None and after is not None:
        titles = gabor_titles(
            (before.wavelengths.tolist(), after.wavelengths.tolist()), (before.orientations.tolist(), after.orientations.tolist())
        )
        gabor_sheet(before.kernels, after.kernels, titles, run.filters, title=title)


def draw_results(
    run: RunFolder, title: str, pictures: StoredPictures, results: Results, card: ModelCard, forward: Forward, device: torch.device
) -> None:
    """What the trained model, `forward` in evaluation mode on `device`, says to held-out pictures, each kind of results in its own way."""
    if isinstance(pictures, PictureSet) and isinstance(results, PictureResults):
        confusion_matrix(results.confusion(len(pictures.class_names)).numpy(), pictures.class_names, run.confusion, title=title)
        _draw_examples(run, title, pictures, results)
    elif isinstance(pictures, ObjectSet) and isinstance(results, DetectionResults):
        draw_found(run, title, pictures, results)
    elif isinstance(pictures, MaskSet) and isinstance(results, PixelResults):
        draw_segmented(run, title, pictures, results, partial(classes_on, forward, pictures, recipe=card.whole_picture, device=device))


def _draw_examples(run: RunFolder, model: str, pictures: PictureSet, results: PictureResults) -> None:
    """Pictures spread evenly over the set and, where there are few wrong ones among them, others of these added."""
    wrong = (~results.correct).nonzero()[:, 0].tolist()
    evenly = spread(len(results), EXAMPLES)
    others = [index for index in wrong if index not in evenly]
    added = spread(len(others), max(0, WRONG_EXAMPLES - len(wrong) + len(others)))
    chosen = sorted([*evenly, *(others[place] for place in added)])
    names = pictures.class_names
    guesses, labels, probabilities = results.guesses[:, 0].tolist(), results.label.tolist(), results.probability.tolist()
    captions = [
        f"{names[guesses[i]]} {probabilities[i]:.0%}" + (f"\nis {names[labels[i]]}" if guesses[i] != labels[i] else "") for i in chosen
    ]
    shown = [read_thumbnail(pictures.open(index)) for index in chosen]
    title = f"{model}: {len(evenly)} of {len(results)} held-out pictures, spread evenly"
    if added:
        title += f", and {len(added)} more that are wrong ({len(wrong)} are in all)"
    contact_sheet(shown, captions, [guesses[i] != labels[i] for i in chosen], run.examples, title=title)
