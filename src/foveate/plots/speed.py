"""How fast models are: time and memory as pictures or batches grow, and published accuracy against measured speed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from foveate.errors import UserError
from foveate.plots.figure import BLUE, GREEN, GREY, MARKERS, MEASURED_LINES, PURPLE, TRAIN_LINE, VERMILLION, new_figure, save

# Of each quantity that grows: its column, the power of it that the work is in proportion to, and what the axis says.
GROWING = {"size": ("side", 2, "side of the square picture, pixels"), "batch": ("batch", 1, "pictures in a batch")}
GROWTH_TITLES = {"size": "time and memory by the size of the picture", "batch": "time and memory by the size of the batch"}
LOGARITHMIC_FROM = 4  # largest speed over smallest
FORM_MARKS = {"eager": (BLUE, "o"), "compiled": (VERMILLION, "s"), "optimized": (GREEN, "^")}
OTHER_MARK = (PURPLE, "D")
NAME_SIZE = 8  # points
NAME_GAP = 6.0  # points from a mark to its name
MOST_NUDGES = 60


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
        lines = cycle([(*line, marker) for marker in MARKERS for line in (TRAIN_LINE, *MEASURED_LINES)])
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
    _name_points(figure, axes, known)
    return save(figure, out)


def _draw_points(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The points of each form in a mark and colour of their own."""
    for form in dict.fromkeys(row["form"] for row in rows):
        colour, marker = FORM_MARKS.get(form, OTHER_MARK)
        points = [(row["images_per_second"], row["top1"]) for row in rows if row["form"] == form]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=6, linestyle="", label=form)
    axes.grid(alpha=0.3)
    axes.margins(0.07, 0.1)
    speeds = [row["images_per_second"] for row in rows]
    if max(speeds) / min(speeds) > LOGARITHMIC_FROM:
        axes.set_xscale("log")
        _tick(axes.xaxis, speeds)


def _tick(axis: Axis, values: Sequence[float]) -> None:
    """Several round numbers on a logarithmic axis, as people write them, where powers of ten alone would be one or none."""
    near = max(values) / min(values) < 30
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if near else (1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_locator(NullLocator())


def _name_points(figure: Figure, axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a name beside every point, higher or lower where others stand in its way, then with a line to the point."""
    figure.draw_without_rendering()  # finds the layout, on which the places in pixels depend
    points = [tuple(axes.transData.transform((row["images_per_second"], row["top1"]))) for row in rows]
    gap = NAME_GAP * figure.dpi / 72
    taken = [Bbox.from_extents(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2) for x, y in points]
    for place in sorted(range(len(rows)), key=lambda place: (-points[place][1], points[place][0])):
        row, (x, y) = rows[place], points[place]
        name = row["model"] if row["form"] == "eager" else f"{row['model']} {row['form']}"
        written = axes.text(0, 0, name, fontsize=NAME_SIZE)
        size = written.get_window_extent()
        written.remove()
        box = _free(list(_places(x, y, gap, size.width, size.height)), taken, axes.get_window_extent())
        taken.append(box)
        _write(axes, name, (row["images_per_second"], row["top1"]), (x, y), box)


def _places(x: float, y: float, gap: float, width: float, height: float) -> Iterator[Bbox]:
    """Where the name of a point may stand, in pixels, the best place first: right or left of it, then ever farther up and down."""
    for nudge in range(MOST_NUDGES):
        middle = y + (nudge + 1) // 2 * (-1) ** nudge * height * -0.6
        for left in (x + gap, x - gap - width):
            yield Bbox.from_bounds(left, middle - height / 2, width, height)


def _free(places: Sequence[Bbox], taken: Sequence[Bbox], bounds: Bbox) -> Bbox:
    """The first place inside the bounds that touches nothing that is taken; where there is none, the first inside them."""
    inside = [box for box in places if bounds.x0 <= box.x0 and box.x1 <= bounds.x1 and bounds.y0 <= box.y0 and box.y1 <= bounds.y1]
    free = (box for box in inside if not any(box.overlaps(other) for other in taken))
    return next(free, inside[0] if inside else places[0])


def _write(axes: Axes, name: str, point: tuple[float, float], pixels: tuple[float, float], box: Bbox) -> None:
    """Writes `name` into `box`, in pixels, and a line from there to the point where it is not level with it."""
    right = box.x0 > pixels[0]
    near = (0.0 if right else 1.0, 0.5)
    level = abs((box.y0 + box.y1) / 2 - pixels[1]) < 1
    label = axes.annotate(
        name,
        point,
        ((box.x0 if right else box.x1) - pixels[0], (box.y0 + box.y1) / 2 - pixels[1]),
        textcoords="offset pixels",
        ha="left" if right else "right",
        va="center",
        fontsize=NAME_SIZE,
        arrowprops=None if level else {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3, "relpos": near},
    )
    label.set_in_layout(False)  # the layout is settled
