"""Who is taken for whom: the confusion of pictures or pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from foveate.plots.figure import new_figure, save

SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)
MOST_NUMBERED_CLASSES = 20
MOST_NAMED_CLASSES = 100


def confusion_matrix(
    matrix: npt.NDArray[np.integer], class_names: Sequence[str], out: Path, *, title: str = "", unit: str = "pictures"
) -> Path:
    """Who is taken for whom: rows are the truth, columns the prediction; colour is the share of the true class, numbers are counts.

    The colour scale is a square root, so that a class lost in one picture of fifty is still seen beside one that is always right. Counts,
    or of pixels percent, are written into the cells up to 20 classes; every class is named on both axes up to 100, above that every n-th.

    Args:
        matrix: (K, K) counts, rows = truth, columns = prediction.
        class_names: K names.
        out: the PNG.
        title: usually the model's name; the number of pictures and the share that is right are added.
        unit: what is counted, "pictures" or "pixels".

    Raises:
        ValueError: where the matrix is not (K, K).
    """
    classes = len(class_names)
    if matrix.shape != (classes, classes):
        raise ValueError(f"confusion matrix: found shape {matrix.shape}, expected ({classes}, {classes}), as many as class names")
    totals = matrix.sum(axis=1)
    side = float(np.clip(0.42 * classes, 4.0, 13.0))
    figure = new_figure(side + 2.6, side + 1.8)
    axes = figure.subplots()
    shares = matrix / np.maximum(totals, 1)[:, None]
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", ticks=SHARES, format=PercentFormatter(1.0), aspect=35, pad=0.02)
    _name_classes(axes, class_names, totals, unit)
    if classes <= MOST_NUMBERED_CLASSES:
        _write_cells(axes, matrix, shares, unit)
    named = "top-1" if unit == "pictures" else "right"
    top1 = f", {named} {np.trace(matrix) / totals.sum():.2%}" if totals.sum() else ""
    axes.set_title(f"{title}\n{totals.sum():,} {unit}{top1}".strip(), fontsize=12, fontweight="bold")
    return save(figure, out)


def _write_cells(axes: Axes, matrix: npt.NDArray[np.integer], shares: npt.NDArray[np.floating], unit: str) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if shares[row, column] > 0.35 else "black"
        written = f"{shares[row, column]:.0%}" if unit == "pixels" else f"{matrix[row, column]}"
        axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=9)


def _name_classes(axes: Axes, names: Sequence[str], totals: npt.NDArray[np.integer], unit: str) -> None:
    short = [name if len(name) <= 22 else name[:21] + "…" for name in names]
    every = -(-len(names) // MOST_NAMED_CLASSES)
    ticks = range(0, len(names), every)
    size = 9 if len(names) <= 30 else 6.5
    axes.set_xticks(ticks, short[::every], rotation=90, fontsize=size)
    axes.set_yticks(ticks, [f"{short[tick]} ({totals[tick]:,})" for tick in ticks], fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel(f"truth ({unit})" + (f", one class in {every} is named" if every > 1 else ""))
    if len(names) <= MOST_NUMBERED_CLASSES:
        axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#DDDDDD", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
