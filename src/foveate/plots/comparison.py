"""Models compared on one data set: what they reach against their speed, and how they got there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from foveate.metric_names import spoken
from foveate.plots.figure import GREY, model_looks, new_figure, save
from foveate.plots.point_names import name_points
from foveate.plots.speed import spread_speeds

Curve = Sequence[tuple[float, float]]


def comparison(
    rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[Curve]], out: Path, *, figure: str, budget: str, title: str = ""
) -> Path:
    """On the left the figure on held-out pictures against measured speed, on the right the learning curves.

    A grey line joins the models that no other beats in both. Bars show the standard deviation over trainings. Trainings of one model that
    were measured at the same points are drawn as their mean, in a band from the smallest to the largest.

    Args:
        rows: `model`, `mean` and `deviation` (None for a single training) as shares of 1, `images_per_second` (None: not on the left).
        curves: by model, for each training, points (budget spent, share of 1).
        out: the PNG.
        figure: what is compared, such as "top1".
        budget: what the trainings spend, such as "minutes".
        title: over the picture.
    """
    drawing = new_figure(14, 5, title)
    against_speed, course = drawing.subplots(1, 2)
    measured = [row for row in rows if row["images_per_second"]]
    looks = dict(zip((row["model"] for row in rows), model_looks(), strict=False))
    for axes in (against_speed, course):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
    against_speed.set_ylabel(f"{spoken(figure)} on held-out pictures")
    course.set_ylabel(f"{spoken(figure)} during training, on what was held out from it")
    course.set_xlabel(f"{budget} of training")
    course.xaxis.set_major_locator(MaxNLocator(integer=budget == "epochs"))
    _courses(course, curves, looks)
    if measured:
        _points(against_speed, measured, looks)
        name_points(drawing, against_speed, [(row["model"], row["images_per_second"], row["mean"]) for row in measured])
    against_speed.set_xlabel("pictures per second, inference, measured here")
    return save(drawing, out)


def _points(axes: Axes, rows: Sequence[Mapping[str, Any]], looks: Mapping[str, tuple[str, Any, str]]) -> None:
    front = frontier([(row["images_per_second"], row["mean"]) for row in rows])
    axes.plot(*zip(*front, strict=True), color=GREY, linewidth=0.9, zorder=0)
    for row in rows:
        colour, _, marker = looks[row["model"]]
        axes.errorbar(row["images_per_second"], row["mean"], yerr=row["deviation"], color=colour, marker=marker, capsize=3, linestyle="")
    axes.margins(0.12, 0.12)
    spread_speeds(axes, [row["images_per_second"] for row in rows])


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both numbers, from left to right."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def _courses(axes: Axes, curves: Mapping[str, Sequence[Curve]], looks: Mapping[str, tuple[str, Any, str]]) -> None:
    """The models in the order of their looks, named beside the axes, where no curve is hidden."""
    for model in (model for model in looks if model in curves):
        trainings = [np.array(curve, dtype=float).reshape(-1, 2) for curve in curves[model]]
        colour, style, marker = looks[model]
        look = {"color": colour, "linestyle": style, "marker": marker, "markersize": 3, "linewidth": 1.2}
        if len({tuple(points[:, 0]) for points in trainings}) == 1:
            spent, values = trainings[0][:, 0], np.stack([points[:, 1] for points in trainings])
            axes.plot(spent, values.mean(axis=0), label=model, **look)
            axes.fill_between(spent, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        else:
            for number, points in enumerate(trainings):
                axes.plot(*points.T, label=model if number == 0 else None, **look)
    if curves:
        axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
