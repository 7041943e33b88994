"""The course of a training: losses, learning rate and the task's figures against the epoch."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from foveate.metric_names import HEADLINES, spoken
from foveate.plots.figure import GREY, MARKERS, MEASURED_LINES, TRAIN_LINE, new_figure, save

SHOWN = (*HEADLINES, "box_ap50", "pixel_accuracy")


def learning_curves(rows: Sequence[Mapping[str, float]], out: Path, *, title: str = "") -> Path:
    """Loss on the left with the learning rate as a thin line, the task's figures on the right, against the epoch.

    Args:
        rows: one mapping per epoch with `epoch`, any columns ending in `loss` and in one of `SHOWN` (shares of 1, shown in percent),
            and `learning_rate`. A column that is missing or not finite in a row has no point there: some figures are measured only every
            few epochs.
        out: the PNG.
        title: usually the model's name.
    """
    lines = sum(len(_columns(rows, ending)) for ending in SHOWN)
    figure = new_figure(11, 4.2 + 0.17 * max(0, lines - 2), title)  # a line of text over the panel for each
    loss, headline = figure.subplots(1, 2)
    _curves(loss, rows, _columns(rows, "loss"))
    loss.set_ylabel("loss")
    _learning_rate(loss, rows)
    _headlines(headline, rows)
    return save(figure, out)


def _headlines(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    columns = {ending: _columns(rows, ending) for ending in SHOWN}
    _curves(axes, rows, [name for names in columns.values() for name in names])
    axes.set_ylabel(", ".join(spoken(ending) for ending, names in columns.items() if names))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _mark_best(axes, rows, [name for names in columns.values() for name in names if not name.startswith("train")])


def _column(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """The epochs and values of a column where it is finite."""
    points = [(row["epoch"], row[name]) for row in rows if np.isfinite(row.get(name, np.nan))]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _columns(rows: Sequence[Mapping[str, float]], ending: str) -> list[str]:
    """Names of the columns with this ending that hold at least one number, in the order in which they appear."""
    names = dict.fromkeys(name for row in rows for name in row if name.endswith(ending))
    return [name for name in names if _column(rows, name)[0]]


def _curves(axes: Axes, rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> None:
    measured = cycle([(*line, marker) for marker in MARKERS for line in MEASURED_LINES])
    for name in columns:
        colour, style, marker = (*TRAIN_LINE, "o") if name.startswith("train") else next(measured)
        epochs, values = _column(rows, name)
        spaced = max(1, len(epochs) // 10) if len(epochs) > 20 else 1
        shown = marker if spaced == 1 or marker != "o" else ""
        axes.plot(epochs, values, color=colour, linestyle=style, marker=shown, markevery=spaced, markersize=3.5, label=spoken(name))
    axes.set_xlabel("epoch")
    if len(rows) == 1:
        axes.set_xlim(rows[0]["epoch"] - 1, rows[0]["epoch"] + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="best", framealpha=0.85, fontsize=10 if len(axes.lines) <= 3 else 8)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> None:
    """Says over the panel which epoch was best by each column, and marks it with a star on the curve."""
    texts = []
    for name in columns:
        epochs, values = _column(rows, name)
        best = int(np.argmax(values))
        axes.plot(epochs[best], values[best], marker="*", markersize=10, color="black", linestyle="", label="_best")
        texts.append(f"best {spoken(name)}: {values[best]:.2%} (epoch {epochs[best]:g})")
    axes.set_title("\n".join(texts), fontsize=10)


def _learning_rate(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    epochs, values = _column(rows, "learning_rate")
    if not epochs:
        return
    right = axes.twinx()
    right.plot(epochs, values, color=GREY, linewidth=0.9, marker="o" if len(epochs) == 1 else "", markersize=2)
    right.set_ylabel("learning rate (thin line)", color=GREY)
    right.tick_params(axis="y", colors=GREY)
    right.set_ylim(bottom=0)
    right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)
