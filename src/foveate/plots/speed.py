"""How fast models are: time and memory as pictures or batches grow, and published accuracy against measured speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

from foveate.errors import UserError
from foveate.plots.figure import BLUE, GREEN, GREY, PURPLE, VERMILLION, model_looks, new_figure, save
from foveate.plots.point_names import name_points

# Of each quantity that grows: its column, the power of it that the work is in proportion to, and what the axis says.
GROWING = {"size": ("side", 2, "side of the square picture, pixels"), "batch": ("batch", 1, "pictures in a batch")}
GROWTH_TITLES = {"size": "time and memory by the size of the picture", "batch": "time and memory by the size of the batch"}
LOGARITHMIC_FROM = 4  # largest speed over smallest
FORM_MARKS = {"eager": (BLUE, "o"), "compiled": (VERMILLION, "s"), "optimized": (GREEN, "^")}
OTHER_MARK = (PURPLE, "D")


def growth(rows: Sequence[Mapping[str, Any]], out: Path, *, by: Literal["size", "batch"] = "size", title: str = "") -> Path:
    """How models grow: seconds on the left, peak memory on the right, against pixels or the batch, both axes logarithmic.

    A thin grey line through each model's first point shows what growth in step with the pixels, or with the batch, would be.

    Args:
        rows: `model`, `side` in pixels of the square picture or `batch`, `seconds`, `peak_mib`.
        out: the PNG.
        by: what grows.
        title: over the picture; empty: what grows.
    """
    column, power, label = GROWING[by]
    figure = new_figure(11, 4.6, title or GROWTH_TITLES[by])
    for axes, name, unit in zip(figure.subplots(1, 2), ("seconds", "peak_mib"), ("seconds", "peak memory, MiB"), strict=True):
        lines = model_looks()
        for model in dict.fromkeys(row["model"] for row in rows):
            points = sorted((row[column], row[name]) for row in rows if row["model"] == model)
            amounts, values = np.array([(amount**power, value) for amount, value in points], dtype=float).T
            colour, style, marker = next(lines)
            axes.loglog(amounts, values, color=colour, linestyle=style, marker=marker, markersize=4, label=model)
            axes.loglog(amounts, values[0] * amounts / amounts[0], color=GREY, linewidth=0.7, zorder=0)
        _tick(axes.yaxis, [row[name] for row in rows])
        ticks = sorted({row[column] for row in rows})
        axes.set_xticks([tick**power for tick in ticks], [f"{tick}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return save(figure, out)


def speed_and_accuracy(rows: Sequence[Mapping[str, Any]], out: Path, *, title: str = "published accuracy against measured speed") -> Path:
    """A point for each measurement: pictures per second across, logarithmic where they differ much, published top-1 upwards.

    Every point has the model's name beside it, with the form behind where that is not "eager"; forms differ in mark and colour.

    Args:
        rows: `model`, `form`, `images_per_second`, `top1` on ImageNet-1K in percent as published; rows where that is None are left out, and
            the picture says how many models these are.
        out: the PNG.
        title: over the picture.

    Raises:
        UserError: where no row has a published accuracy.
    """
    known = [row for row in rows if row["top1"] is not None]
    if not known:
        models = ", ".join(dict.fromkeys(row["model"] for row in rows)) or "no models"
        raise UserError(f"{out}: found no published accuracy of {models}, expected one of at least one model: leave the picture out")
    figure = new_figure(9, 5 + 0.12 * max(0, len(known) - 10), title)
    axes = figure.subplots()
    _draw_points(axes, known)
    if len(axes.lines) > 1:
        figure.legend(loc="outside lower center", ncols=len(axes.lines), fontsize=9)
    left_out = len({row["model"] for row in rows} - {row["model"] for row in known})
    note = f"\nmodels without published accuracy, left out: {left_out}" if left_out else ""
    axes.set_xlabel(f"pictures per second, measured{note}")
    axes.set_ylabel("ImageNet-1K top-1 as published, %")
    name_points(figure, axes, [(_name(row), row["images_per_second"], row["top1"]) for row in known])
    return save(figure, out)


def _name(row: Mapping[str, Any]) -> str:
    return row["model"] if row["form"] == "eager" else f"{row['model']} {row['form']}"


def _draw_points(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The points of each form in a mark and colour of their own."""
    for form in dict.fromkeys(row["form"] for row in rows):
        colour, marker = FORM_MARKS.get(form, OTHER_MARK)
        points = [(row["images_per_second"], row["top1"]) for row in rows if row["form"] == form]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=6, linestyle="", label=form)
    axes.grid(alpha=0.3)
    axes.margins(0.07, 0.1)
    spread_speeds(axes, [row["images_per_second"] for row in rows])


def spread_speeds(axes: Axes, speeds: Sequence[float]) -> None:
    """A logarithmic axis of speeds where they differ much."""
    if max(speeds) / min(speeds) > LOGARITHMIC_FROM:
        axes.set_xscale("log")
        _tick(axes.xaxis, speeds)


def _tick(axis: Axis, values: Sequence[float]) -> None:
    """Several round numbers on a logarithmic axis, as people write them, where powers of ten alone would be one or none."""
    near = max(values) / min(values) < 30
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if near else (1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_locator(NullLocator())
