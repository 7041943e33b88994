"""Every picture the project draws of its own figures: numbers and pictures in, the path of one PNG out.

Colours are told apart by people with colour-blind vision (Okabe-Ito), and no statement rests on colour alone. Nothing here touches
pyplot's global state, so every function may be called from any thread; files appear under their name only when complete.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image, ImageDraw

from foveate.errors import UserError
from foveate.lettering import fitted, font

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B6B6B"
TRAIN_LINE = (BLUE, "--")
MEASURED_LINES = ((VERMILLION, "-"), (GREEN, "-."), (PURPLE, ":"))
MARKERS = ("o", "s", "^")
HEADLINES = {
    "top1": "top-1",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "box_ap50": "box AP50",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}
WRONG, RIGHT = (196, 22, 28), (107, 107, 107)
SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)
DOTS_PER_INCH = 150
MOST_NUMBERED_CLASSES = 20
MOST_NAMED_CLASSES = 100
TEXT_HEIGHT = 19


def learning_curves(rows: Sequence[Mapping[str, float]], out: Path, *, title: str = "") -> Path:
    """Loss on the left with the learning rate as a thin line, the task's figures on the right, against the epoch.

    Args:
        rows: one mapping per epoch with `epoch`, any columns ending in `loss` and in one of `HEADLINES` (shares of 1, shown in percent),
            and `learning_rate`. A column that is missing or not finite in a row has no point there: some figures are measured only every
            few epochs.
        out: the PNG.
        title: usually the model's name.
    """
    lines = sum(len(_columns(rows, ending)) for ending in HEADLINES)
    figure = _figure(11, 4.2 + 0.17 * max(0, lines - 2))  # a line of text over the panel for each
    loss, headline = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    _curves(loss, rows, _columns(rows, "loss"))
    loss.set_ylabel("loss")
    _learning_rate(loss, rows)
    _headlines(headline, rows)
    return _save(figure, out)


def _headlines(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    columns = {ending: _columns(rows, ending) for ending in HEADLINES}
    _curves(axes, rows, [name for names in columns.values() for name in names])
    axes.set_ylabel(", ".join(HEADLINES[ending] for ending, names in columns.items() if names))
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
        axes.plot(epochs, values, color=colour, linestyle=style, marker=shown, markevery=spaced, markersize=3.5, label=_spoken(name))
    axes.set_xlabel("epoch")
    if len(rows) == 1:
        axes.set_xlim(rows[0]["epoch"] - 1, rows[0]["epoch"] + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="best", framealpha=0.85, fontsize=10 if len(axes.lines) <= 3 else 8)


def _spoken(column: str) -> str:
    """A column's name in words: `val_box_ap50` is "val box AP50"."""
    ending = max((ending for ending in HEADLINES if column.endswith(ending)), key=len, default="")
    return column.removesuffix(ending).replace("_", " ") + HEADLINES.get(ending, "")


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> None:
    """Says over the panel which epoch was best by each column, and marks it with a star on the curve."""
    texts = []
    for name in columns:
        epochs, values = _column(rows, name)
        best = int(np.argmax(values))
        axes.plot(epochs[best], values[best], marker="*", markersize=10, color="black", linestyle="", label="_best")
        texts.append(f"best {_spoken(name)}: {values[best]:.2%} (epoch {epochs[best]:g})")
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
    figure = _figure(side + 2.6, side + 1.8)
    axes = figure.subplots()
    shares = matrix / np.maximum(totals, 1)[:, None]
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", ticks=SHARES, format=PercentFormatter(1.0), aspect=35, pad=0.02)
    _name_classes(axes, class_names, totals, unit)
    if classes <= MOST_NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.35 else "black"
            written = f"{shares[row, column]:.0%}" if unit == "pixels" else f"{matrix[row, column]}"
            axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=9)
    named = "top-1" if unit == "pictures" else "right"
    top1 = f", {named} {np.trace(matrix) / totals.sum():.2%}" if totals.sum() else ""
    axes.set_title(f"{title}\n{totals.sum():,} {unit}{top1}".strip(), fontsize=12, fontweight="bold")
    return _save(figure, out)


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


def contact_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    wrong: Sequence[bool] | None,
    out: Path,
    *,
    columns: int = 8,
    side: int = 168,
    title: str = "",
) -> Path:
    """Pictures in rows with a caption under each; wrong ones have a red frame and the word "wrong", right ones the word "right".

    Small pictures are enlarged by a whole factor without smoothing, so that every pixel stays a sharp square; large ones are reduced.

    Args:
        pictures: any mode and size.
        captions: one per picture, may hold several lines; a line wider than its cell ends in an ellipsis.
        wrong: one truth value per picture; None where nothing is known.
        out: the PNG.
        columns: pictures per row, fewer where there are fewer pictures.
        side: pixels of the square that holds a picture.
        title: usually the model's name.

    Raises:
        ValueError: where the lists differ in length or are empty.
    """
    if not pictures or len(captions) != len(pictures) or (wrong is not None and len(wrong) != len(pictures)):
        raise ValueError(f"contact sheet: found {len(pictures)} pictures and {len(captions)} captions, expected as many, at least one")
    texts = [caption.split("\n") for caption in captions]
    gap, top = 14, 46 if title else 14
    cell = side + gap, side + TEXT_HEIGHT * (max(map(len, texts)) + (wrong is not None)) + 10 + gap
    columns = min(columns, len(pictures))
    width = max(columns * cell[0] + gap, int(font(18).getlength(title) * 1.15) + 2 * gap)
    sheet = Image.new("RGB", (width, top + -(-len(pictures) // columns) * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 12), title, font=font(18, bold=True), fill="black")
    for index, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        left, upper = gap + index % columns * cell[0], top + index // columns * cell[1]
        scaled = _scale(picture, side)
        sheet.paste(scaled, (left + (side - scaled.width) // 2, upper + (side - scaled.height) // 2))
        written = upper + side + 8
        if wrong is not None:
            _judge(draw, (left, upper), side, wrong[index])
            written += TEXT_HEIGHT
        for number, line in enumerate(lines):
            draw.text((left, written + number * TEXT_HEIGHT), fitted(line, side, font(14)), font=font(14), fill="black")
    return _replace(out, lambda part: sheet.save(part, format="PNG"))


def _scale(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    sharp = scale >= 2
    width, height = (length * int(scale) if sharp else max(1, round(length * scale)) for length in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


def _judge(draw: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, wrong: bool) -> None:
    """Frames a picture and writes under it whether the prediction is right."""
    margin, width, colour = (5, 5, WRONG) if wrong else (2, 1, RIGHT)
    draw.rectangle(
        (corner[0] - margin, corner[1] - margin, corner[0] + side + margin - 1, corner[1] + side + margin - 1), None, colour, width
    )
    draw.text((corner[0], corner[1] + side + 8), "✗ wrong" if wrong else "✓ right", font=font(14, bold=True), fill=colour)


def growth(rows: Sequence[Mapping[str, Any]], out: Path, *, title: str = "time and memory by the size of the picture") -> Path:
    """How models grow with the picture: seconds on the left, peak memory on the right, against the pixels, both axes logarithmic.

    A thin grey line through each model's first point shows what growth in step with the pixels would be.

    Args:
        rows: `model`, `side` in pixels of the square picture, `seconds`, `peak_mib`.
        out: the PNG.
        title: over the picture.
    """
    figure = _figure(11, 4.6)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    for axes, name, label in zip(figure.subplots(1, 2), ("seconds", "peak_mib"), ("seconds", "peak memory, MiB"), strict=True):
        lines = cycle([(*line, marker) for marker in MARKERS for line in (TRAIN_LINE, *MEASURED_LINES)])
        for model in dict.fromkeys(row["model"] for row in rows):
            points = sorted((row["side"], row[name]) for row in rows if row["model"] == model)
            sides, values = np.array(points, dtype=float).T
            colour, style, marker = next(lines)
            axes.loglog(sides**2, values, color=colour, linestyle=style, marker=marker, markersize=4, label=model)
            axes.loglog(sides**2, values[0] * (sides / sides[0]) ** 2, color=GREY, linewidth=0.7, zorder=0)
        sides = sorted({row["side"] for row in rows})
        axes.set_xticks([side**2 for side in sides], [f"{side}" for side in sides])
        axes.minorticks_off()
        axes.set_xlabel("side of the square picture, pixels")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return _save(figure, out)


def gabor_titles(wavelengths: tuple[Sequence[float], Sequence[float]], orientations: tuple[Sequence[float], Sequence[float]]) -> list[str]:
    """The two lines that `gabor_sheet` writes over each filter: wavelength in pixels, orientation in degrees 0..179, before and after.

    Args:
        wavelengths: before and after, in pixels of the map; above 99 px a filter has no visible stripes, and is shown as ">99".
        orientations: before and after, in radians, counter-clockwise: the direction across the stripes, which repeats every half turn.
    """

    def length(pixels: float) -> str:
        return f"{pixels:.1f}" if pixels < 99 else ">99"

    def angle(radians: float) -> str:
        return f"{round(np.degrees(radians)) % 180}°"

    changes = zip(*wavelengths, *orientations, strict=True)
    return [f"{length(old)} → {length(new)} px\n{angle(start)} → {angle(end)}" for old, new, start, end in changes]


def gabor_sheet(
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    titles: Sequence[str],
    out: Path,
    *,
    columns: int = 8,
    title: str = "",
) -> Path:
    """Gabor kernels before (above) and after training (below), in pairs; each pair shares one symmetric colour scale.

    Args:
        before: (N, k, k) kernels as they were.
        after: (N, k, k) the same kernels as they are.
        titles: N short texts over the pairs, see `gabor_titles`.
        out: the PNG.
        columns: pairs per row.
        title: usually the model's name.

    Raises:
        ValueError: where the arrays differ in shape or the titles in number.
    """
    if before.shape != after.shape or len(titles) != len(before) or not len(before):
        raise ValueError(
            f"gabor sheet: found {before.shape} before, {after.shape} after, {len(titles)} titles, expected equal numbers, at least one"
        )
    columns = min(columns, len(before))
    rows = -(-len(before) // columns)
    pitch_x, pitch_y = 1.25, 2.75
    figure = _figure(max(pitch_x * columns + 1.8, 6.5), pitch_y * rows + 1.1)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.supxlabel("over each pair: wavelength and orientation (across the stripes, counter-clockwise), before → after", fontsize=9)
    axes = figure.subplots()
    axes.set_axis_off()
    for index, pair in enumerate(np.stack((before, after), axis=1)):
        left, top = index % columns * pitch_x, -(index // columns) * pitch_y
        largest = float(np.abs(pair).max()) or 1.0
        for kernel, bottom, name in zip(pair / largest, (top - 1, top - 2.08), ("before", "after"), strict=True):
            box = (left, left + 1, bottom, bottom + 1)
            image = axes.imshow(kernel, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", extent=box)
            axes.add_patch(Rectangle((left, bottom), 1, 1, fill=False, edgecolor=GREY, linewidth=0.5))
            if index % columns == 0:
                axes.text(left - 0.1, bottom + 0.5, name, rotation=90, ha="right", va="center", fontsize=10)
        axes.text(left + 0.5, top + 0.06, titles[index], ha="center", va="bottom", fontsize=8.5)
    axes.set_xlim(-0.35, columns * pitch_x - 0.2)
    axes.set_ylim(-pitch_y * rows + 0.6, 0.5)
    figure.colorbar(image, ax=axes, label="weight / largest of its pair", shrink=min(1.0, 1.4 / rows), aspect=25, pad=0.01, panchor=False)
    return _save(figure, out)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))


def _save(figure: Figure, out: Path) -> Path:
    return _replace(out, lambda part: figure.savefig(part, format="png"))


def _replace(out: Path, write: Callable[[Path], None]) -> Path:
    """Writes beside `out` and renames, so that a killed program leaves the old picture or the new one, never half of one."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(out)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}); name a file in a folder that exists and is writable"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return out
